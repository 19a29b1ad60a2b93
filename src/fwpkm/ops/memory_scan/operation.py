"""The memory scan as an operation of PyTorch: carried out by whatever backend runs, differentiable once."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.backend import runs_compiled, runs_triton
from fwpkm.ops.blocks import large_empty
from fwpkm.ops.memory_scan.torch import make_chunks, scan_back_torch, scan_in_place, scan_torch


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
    if runs_compiled(table) and table.is_contiguous():
        return _compiled_scan_(table, rows, w, write_w, target, list(reads), list(writes))
    if runs_triton(table) and table.is_contiguous():
        return _triton_scan_(table, rows, w, write_w, target, list(reads), list(writes))
    return scan_in_place(table, rows, w, write_w, target, make_chunks(rows, reads, writes))


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
    num_rows = table.shape[0] if ids is None else ids.shape[0]
    new = large_empty((num_rows, table.shape[1]), table)
    if runs_compiled(table):
        if ids is None:
            new.copy_(table)
            return _compiled_scan_(new, rows, w, write_w, target, reads, writes), new
        return _compiled_scan_(new, rows, w, write_w, target, reads, writes, table, ids), new
    if runs_triton(table):
        _ = new.copy_(table) if ids is None else torch.index_select(table, 0, ids, out=new)
        return _triton_scan_(new, rows, w, write_w, target, reads, writes), new
    return scan_torch(new, table, rows, w, write_w, target, ids, reads, writes), new


def _compiled_scan_(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: list[int],
    writes: list[int],
    base: Tensor | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    from fwpkm.ops.memory_scan.numba import scan_

    return scan_(table, rows, w, write_w, target, reads, writes, base, ids)


def _triton_scan_(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: list[int],
    writes: list[int],
) -> Tensor:
    from fwpkm.ops.memory_scan.triton import scan_

    return scan_(table, rows, w, write_w, target, reads, writes)


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
    wants_table: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if runs_compiled(table):
        return _compiled_backward(
            table, rows, w, write_w, target, v_hat, d_v_hat, d_table, reads, writes, wants_table
        )
    if runs_triton(table):
        return _triton_backward(
            table, rows, w, write_w, target, v_hat, d_v_hat, d_table, reads, writes, wants_table
        )
    return scan_back_torch(
        table, rows, w, write_w, target, v_hat, d_v_hat, d_table, reads, writes, wants_table
    )


def _compiled_backward(
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
    wants_table: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from fwpkm.ops.memory_scan.numba import scan_back

    V, G = (large_empty(tuple(table.shape), table) for _ in range(2))
    has_gradient = d_table is not None
    if d_table is not None:
        G.copy_(d_table)
    elif wants_table:
        G.zero_()
    dw, d_write, d_target = scan_back(
        table,
        V,
        G,
        rows,
        w,
        write_w,
        target,
        v_hat,
        d_v_hat,
        reads,
        writes,
        has_gradient=has_gradient,
        wants_gradient=wants_table,
    )
    return G if wants_table else table.new_empty(0), dw, d_write, d_target


def _triton_backward(
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
    wants_table: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from fwpkm.ops.memory_scan.triton import scan_back

    V = table.clone(memory_format=torch.contiguous_format)
    G = torch.zeros_like(V) if d_table is None else d_table.clone(memory_format=torch.contiguous_format)
    grads = scan_back(V, G, rows, w, write_w, target, v_hat, d_v_hat, reads, writes)
    return G if wants_table else table.new_empty(0), *grads


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
    wants_table: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_old = torch.empty_like(table) if wants_table else table.new_empty(0)
    return d_old, torch.empty_like(w), torch.empty_like(write_w), torch.empty_like(target)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, rows, w, write_w, target, _, ctx.reads, ctx.writes = inputs
    v_hat, table = output
    ctx.set_materialize_grads(False)  # the final table's gradient is as large as the table, and often none
    ctx.save_for_backward(table, rows, w, write_w, target, v_hat)


def _backward(ctx: Any, d_v_hat: Tensor | None, d_table: Tensor | None) -> tuple[Tensor | None, ...]:
    if d_v_hat is None:
        d_v_hat = torch.zeros_like(ctx.saved_tensors[-1])
    d_old, dw, d_write, d_target = _memory_scan_backward(
        *ctx.saved_tensors, d_v_hat, d_table, ctx.reads, ctx.writes, ctx.needs_input_grad[0]
    )
    return d_old if ctx.needs_input_grad[0] else None, None, dw, d_write, d_target, None, None, None


_memory_scan.register_autograd(_backward, setup_context=_setup_context)
