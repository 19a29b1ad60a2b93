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
    target: Float[Tensor, "Tt Dv"],
    reads: Sequence[int],
    writes: Sequence[int],
    ids: Int[Tensor, " R"] | None = None,
    aims: Int[Tensor, " Tw"] | None = None,
    answers: Int[Tensor, " Ta"] | None = None,
) -> tuple[Float[Tensor, "Ta Dv"], Float[Tensor, "R Dv"]]:
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
        target: What the written tokens' rows should have answered; it may be narrower than the table, in whose
            precision all is computed.
        reads: Tokens that read, per chunk; they add up to Tr.
        writes: Tokens that write, per chunk, 0 <= writes[c] <= reads[c]; they add up to Tw.
        ids: Work on these rows of `table` only, `rows` numbering them; no gradient goes to `table` then.
            None works on all rows.
        aims: The row of `target` that each written token aims at, no row twice; `target` may have others. None: in
            this order, Tt = Tw.
        answers: The tokens whose v^ is returned, in this order, none twice. None: all, Ta = Tr.

    Returns:
        Retrieved values v^ and the table after the last write, sharing no memory with the inputs.

    Raises:
        ValueError: If the counts do not fit the tensors.
    """
    check_scan(table, rows, w, write_w, target, reads, writes, aims)
    source = table if ids is None else table.detach()
    answer, new, _ = _memory_scan(
        source, rows, w, write_w, target, ids, aims, answers, list(reads), list(writes)
    )
    return answer, new


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
    check_scan(table, rows, w, write_w, target, reads, writes)
    if runs_compiled(table) and table.is_contiguous():
        from fwpkm.ops.memory_scan import numba

        return numba.scan_(table, rows, w, write_w, target.to(table.dtype), reads, writes)[0]
    if runs_triton(table) and table.is_contiguous():
        from fwpkm.ops.memory_scan import triton

        return triton.scan_(table, rows, w, write_w, target, list(reads), list(writes))
    return scan_in_place(table, rows, w, write_w, target.to(table.dtype), make_chunks(rows, reads, writes))


def check_scan(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: Sequence[int],
    writes: Sequence[int],
    aims: Tensor | None = None,
) -> None:
    """Raise ValueError unless the counts of a scan fit its tensors."""
    problems = []
    num_targets = target.shape[0] if aims is None else aims.shape[0]
    if sum(reads) != rows.shape[0] or rows.shape != w.shape:
        problems.append(
            f"reads must add up to the tokens of rows and w, got sum(reads)={sum(reads)}, rows "
            f"{tuple(rows.shape)} and w {tuple(w.shape)}"
        )
    if not sum(writes) == write_w.shape[0] == num_targets or write_w.shape[1] != rows.shape[1]:
        problems.append(
            f"writes must add up to the tokens of write_w and target, got sum(writes)={sum(writes)}, write_w "
            f"{tuple(write_w.shape)} and {num_targets} targets of width {target.shape[1]}"
        )
    if len(reads) != len(writes) or any(not 0 <= b <= a for a, b in zip(reads, writes, strict=False)):
        problems.append(
            f"each chunk writes for some of its reading tokens, got reads={reads}, writes={writes}"
        )
    if torch.promote_types(target.dtype, table.dtype) != table.dtype:
        problems.append(f"target must not be wider than the table, got {target.dtype} and {table.dtype}")
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
    aims: Tensor | None,
    answers: Tensor | None,
    reads: list[int],
    writes: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what was asked for, the last table, and what all tokens read, or nothing if all was asked for."""
    num_rows = table.shape[0] if ids is None else ids.shape[0]
    new = large_empty((num_rows, table.shape[1]), table)
    if runs_compiled(table):
        from fwpkm.ops.memory_scan import numba

        base = None if ids is None else table
        if base is None:
            new.copy_(table)
        wide = target.to(table.dtype)
        v_hat, answer = numba.scan_(new, rows, w, write_w, wide, reads, writes, base, ids, aims, answers)
        return answer, new, v_hat.new_empty(0) if answers is None else v_hat
    aimed = _chosen(target, aims)
    if runs_triton(table):
        from fwpkm.ops.memory_scan import triton

        _ = new.copy_(table) if ids is None else torch.index_select(table, 0, ids, out=new)
        v_hat = triton.scan_(new, rows, w, write_w, aimed, reads, writes)
    else:
        v_hat = scan_torch(new, table, rows, w, write_w, aimed.to(table.dtype), ids, reads, writes)
    return (v_hat, new, v_hat.new_empty(0)) if answers is None else (_chosen(v_hat, answers), new, v_hat)


def _chosen(x: Tensor, places: Tensor | None) -> Tensor:
    return x if places is None else x.index_select(0, places)


def _put_back(x: Tensor, places: Tensor | None, num_rows: int) -> Tensor:
    """Undo `_chosen`, with zeros for what was not chosen."""
    return x if places is None else x.new_zeros(num_rows, x.shape[1]).index_copy_(0, places, x)


@_memory_scan.register_fake
def _(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    ids: Tensor | None,
    aims: Tensor | None,
    answers: Tensor | None,
    reads: list[int],
    writes: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    num_rows, tokens = table.shape[0] if ids is None else ids.shape[0], rows.shape[0]
    new = table.new_empty(num_rows, table.shape[1])
    v_hat = table.new_empty(tokens, table.shape[1])
    if answers is None:
        return v_hat, new, table.new_empty(0)
    return table.new_empty(answers.shape[0], table.shape[1]), new, v_hat


@torch.library.custom_op("fwpkm::memory_scan_backward", mutates_args=())
def _memory_scan_backward(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    v_hat: Tensor,
    aims: Tensor | None,
    answers: Tensor | None,
    d_answer: Tensor,
    d_table: Tensor | None,
    reads: list[int],
    writes: list[int],
    wants_table: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = (table, rows, w, write_w)
    how = (d_table, reads, writes, wants_table)
    if runs_compiled(table):
        wide = target.to(table.dtype)
        d_old, dw, da, d_target = _compiled_backward(*given, wide, v_hat, aims, answers, d_answer, *how)
        return d_old, dw, da, d_target.to(target.dtype)
    d_v_hat, aimed = _put_back(d_answer, answers, v_hat.shape[0]), _chosen(target, aims)
    if runs_triton(table):
        d_old, dw, da, d_aimed = _triton_backward(*given, aimed, v_hat, d_v_hat, *how)
    else:
        d_old, dw, da, d_aimed = scan_back_torch(*given, aimed.to(table.dtype), v_hat, d_v_hat, *how)
    return d_old, dw, da, _put_back(d_aimed.to(target.dtype), aims, target.shape[0])


def _compiled_backward(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    v_hat: Tensor,
    aims: Tensor | None,
    answers: Tensor | None,
    d_answer: Tensor,
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
        d_answer,
        reads,
        writes,
        aims,
        answers,
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
    aims: Tensor | None,
    answers: Tensor | None,
    d_answer: Tensor,
    d_table: Tensor | None,
    reads: list[int],
    writes: list[int],
    wants_table: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_old = torch.empty_like(table) if wants_table else table.new_empty(0)
    return d_old, torch.empty_like(w), torch.empty_like(write_w), torch.empty_like(target)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, rows, w, write_w, target, _, aims, answers, ctx.reads, ctx.writes = inputs
    answer, table, v_hat = output
    ctx.mark_non_differentiable(v_hat)
    ctx.set_materialize_grads(False)  # the final table's gradient is as large as the table, and often none
    kept = answer if answers is None else v_hat
    ctx.num_answers = answer.shape[0]
    ctx.save_for_backward(table, rows, w, write_w, target, kept, aims, answers)


def _backward(ctx: Any, d_answer: Tensor | None, d_table: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: under activation checkpointing they are gone afterwards
    if d_answer is None:
        d_answer = saved[0].new_zeros(ctx.num_answers, saved[0].shape[1])
    d_old, dw, d_write, d_target = _memory_scan_backward(
        *saved, d_answer, d_table, ctx.reads, ctx.writes, ctx.needs_input_grad[0]
    )
    return d_old if ctx.needs_input_grad[0] else None, None, dw, d_write, d_target, *[None] * 5


_memory_scan.register_autograd(_backward, setup_context=_setup_context)
