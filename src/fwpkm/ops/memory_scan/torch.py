"""The memory scan in plain PyTorch: sparse closed-form writes, a hand-derived backward, undo instead of copies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.sparse import gathered_inner, gathered_sum, large_empty, segment_sum


def memory_scan(
    table: Float[Tensor, "N Dv"],
    rows: Int[Tensor, "Tr J"],
    w: Float[Tensor, "Tr J"],
    write_w: Float[Tensor, "Tw J"],
    target: Float[Tensor, "Tw Dv"],
    reads: Sequence[int],
    writes: Sequence[int],
    ids: Int[Tensor, " R"] | None = None,
) -> tuple[Float[Tensor, "Tr Dv"], Float[Tensor, "R Dv"]]:
    r"""Read and write a table chunk by chunk.

    Chunk c reads for its reads[c] tokens, then writes for the first writes[c] of them:

        v^_t = sum_j w_tj V[row_tj] ;   V[row_tj] <- V[row_tj] - a_tj (v^_t - target_t)

    with the table V as it stood when the chunk began and a = `write_w`. For a = eta g w / R this is the
    gradient step of the memory loss  (FwPKM, arXiv:2601.00671v2, memorisation step; D1 for eta). The backward
    undoes the writes one after the other, so no version of the table is ever kept.

    Args:
        table: Rows of one or several streams' tables; never edited.
        rows: Rows read by each token, chunk after chunk; within a chunk the written tokens come first.
        w: Read weights.
        write_w: Step sizes of the written tokens' rows.
        target: What the written tokens' rows should have answered.
        reads: Tokens that read, per chunk; they add up to Tr.
        writes: Tokens that write, per chunk, 0 <= writes[c] <= reads[c]; they add up to Tw.
        ids: Work on these rows of `table` only, `rows` numbering them; no gradient goes to `table` then.
            None works on all rows.

    Returns:
        Retrieved values v^ and the table after the last write, sharing no memory with the inputs.

    Raises:
        ValueError: If the counts do not fit the tensors.
    """
    _check(table, rows, w, write_w, target, reads, writes)
    return _memory_scan(
        table if ids is None else table.detach(), rows, w, write_w, target, ids, list(reads), list(writes)
    )


def memory_scan_(
    table: Float[Tensor, "R Dv"],
    rows: Int[Tensor, "Tr J"],
    w: Float[Tensor, "Tr J"],
    write_w: Float[Tensor, "Tw J"],
    target: Float[Tensor, "Tw Dv"],
    reads: Sequence[int],
    writes: Sequence[int],
) -> Float[Tensor, "Tr Dv"]:
    """Do what `memory_scan` does, editing `table` itself; not differentiable, for inference."""
    _check(table, rows, w, write_w, target, reads, writes)
    return _scan_in_place(table, rows, w, write_w, target, reads, writes)


def _check(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: Sequence[int],
    writes: Sequence[int],
) -> None:
    problems = []
    if sum(reads) != rows.shape[0] or rows.shape != w.shape:
        problems.append(
            f"reads must add up to the tokens of rows and w, got sum(reads)={sum(reads)}, rows "
            f"{tuple(rows.shape)} and w {tuple(w.shape)}"
        )
    if not sum(writes) == write_w.shape[0] == target.shape[0] or write_w.shape[1] != rows.shape[1]:
        problems.append(
            f"writes must add up to the tokens of write_w and target, got sum(writes)={sum(writes)}, write_w "
            f"{tuple(write_w.shape)} and target {tuple(target.shape)}"
        )
    if len(reads) != len(writes) or any(not 0 <= b <= a for a, b in zip(reads, writes, strict=False)):
        problems.append(
            f"each chunk writes for some of its reading tokens, got reads={reads}, writes={writes}"
        )
    if table.shape[1] != target.shape[1]:
        problems.append(f"table and target must be equally wide, got {table.shape[1]} and {target.shape[1]}")
    if problems:
        raise ValueError("memory_scan: " + "; ".join(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """The pairs (token, j) of one chunk, sorted by row, so that each row's pairs form one run."""

    row: Tensor  # [U] distinct rows
    start: Tensor  # [U] where each row's run begins
    token: Tensor  # [P] token of each sorted pair
    order: Tensor  # [P] place of each sorted pair in the flat pairs

    @classmethod
    def of(cls, rows: Tensor) -> "_Runs":
        ordered, order = rows.flatten().sort(stable=True)
        row, count = torch.unique_consecutive(ordered, return_counts=True)
        token = torch.div(order, rows.shape[1], rounding_mode="floor")
        return cls(row=row, start=count.cumsum(0) - count, token=token, order=order)

    def add_(self, table: Tensor, w: Tensor, x: Tensor) -> None:
        """Add  w_tj x_t  to the pairs' rows of `table`, each row's terms in the order of the tokens."""
        table.index_add_(0, self.row, segment_sum(w.flatten()[self.order], self.token, self.start, x))


def _scan_in_place(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: Sequence[int],
    writes: Sequence[int],
) -> Tensor:
    v_hat = table.new_empty(rows.shape[0], table.shape[1])
    r = t = 0
    for num_reads, num_writes in zip(reads, writes, strict=True):
        read, written = slice(r, r + num_reads), slice(t, t + num_writes)
        v_hat[read] = gathered_sum(w[read], rows[read], table)
        if num_writes:
            error = v_hat[r : r + num_writes] - target[written]
            _Runs.of(rows[r : r + num_writes]).add_(table, -write_w[written], error)
        r, t = r + num_reads, t + num_writes
    return v_hat


@torch.library.custom_op("fwpkm::memory_scan", mutates_args=())
def _memory_scan(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    ids: Tensor | None,
    reads: list[int],
    writes: list[int],
) -> tuple[Tensor, Tensor]:
    own = large_empty((table.shape[0] if ids is None else ids.shape[0], table.shape[1]), table)
    if ids is None:
        own.copy_(table)
    else:
        torch.index_select(table, 0, ids, out=own)
    return _scan_in_place(own, rows, w, write_w, target, reads, writes), own


@_memory_scan.register_fake
def _(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    ids: Tensor | None,
    reads: list[int],
    writes: list[int],
) -> tuple[Tensor, Tensor]:
    num_rows = table.shape[0] if ids is None else ids.shape[0]
    return table.new_empty(rows.shape[0], table.shape[1]), table.new_empty(num_rows, table.shape[1])


@torch.library.custom_op("fwpkm::memory_scan_backward", mutates_args=())
def _memory_scan_backward(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    v_hat: Tensor,
    d_v_hat: Tensor,
    d_table: Tensor | None,
    reads: list[int],
    writes: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Walk the chunks in reverse from the final `table`, undoing its writes on the way.

    With G = dL/dV after a chunk's write:  u_t = sum_j a_tj G[row_tj],  d target = u,  da_tj = -G[row_tj] . e_t,
    d v^ = (what the reads want) - u;  then  dw_tj = V[row_tj] . d v^_t  and  G[row_tj] += w_tj d v^_t.

    Returns:
        Gradients of the table, w, write_w and target.
    """
    V, G = (large_empty(tuple(table.shape), table) for _ in range(2))
    V.copy_(table)
    _ = G.zero_() if d_table is None else G.copy_(d_table)
    dw, d_write, d_target = torch.empty_like(w), torch.empty_like(write_w), torch.empty_like(target)
    r, t = rows.shape[0], target.shape[0]
    for num_reads, num_writes in zip(reversed(reads), reversed(writes), strict=True):
        r, t = r - num_reads, t - num_writes
        read, written = slice(r, r + num_reads), slice(t, t + num_writes)
        d_read = d_v_hat[read].contiguous()
        runs = _Runs.of(rows[read])
        if num_writes:
            own = rows[r : r + num_writes]
            a, error = write_w[written], v_hat[r : r + num_writes] - target[written]
            (runs if num_writes == num_reads else _Runs.of(own)).add_(V, a, error)
            u = gathered_sum(a, own, G)
            d_target[written] = u
            d_write[written] = -gathered_inner(error, G, own)
            d_read = torch.cat((d_read[:num_writes] - u, d_read[num_writes:]))
        dw[read] = gathered_inner(d_read, V, rows[read])
        runs.add_(G, w[read], d_read)
    return G, dw, d_write, d_target


@_memory_scan_backward.register_fake
def _(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    v_hat: Tensor,
    d_v_hat: Tensor,
    d_table: Tensor | None,
    reads: list[int],
    writes: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(table), torch.empty_like(w), torch.empty_like(write_w), torch.empty_like(target)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, rows, w, write_w, target, ids, ctx.reads, ctx.writes = inputs
    v_hat, table = output
    ctx.whole_table = ids is None
    ctx.set_materialize_grads(False)  # the final table's gradient is as large as the table, and often none
    ctx.save_for_backward(table, rows, w, write_w, target, v_hat)


def _backward(ctx: Any, d_v_hat: Tensor | None, d_table: Tensor | None) -> tuple[Tensor | None, ...]:
    if d_v_hat is None:
        d_v_hat = torch.zeros_like(ctx.saved_tensors[-1])
    d_old, dw, d_write, d_target = _memory_scan_backward(
        *ctx.saved_tensors, d_v_hat, d_table, ctx.reads, ctx.writes
    )
    return d_old if ctx.whole_table else None, None, dw, d_write, d_target, None, None, None


_memory_scan.register_autograd(_backward, setup_context=_setup_context)
