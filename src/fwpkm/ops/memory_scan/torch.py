"""The memory scan in plain PyTorch: sparse closed-form writes, a hand-derived backward, undo instead of copies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fwpkm.ops.blocks import large_empty
from fwpkm.ops.sparse import Runs, gathered_inner, gathered_sum

_CACHED_BYTES = 8 << 20
_NARROWEST = 64
"""Columns of the narrowest block: four cache lines of float32, enough to hide the bookkeeping of a row."""


def scan_torch(
    new: Tensor,
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    ids: Tensor | None,
    reads: list[int],
    writes: list[int],
) -> Tensor:
    """Do what the operation `fwpkm::memory_scan` does; put the last table into `new` and return what was retrieved."""
    v_hat, chunks = table.new_empty(rows.shape[0], table.shape[1]), make_chunks(rows, reads, writes)
    for columns in _column_blocks(table, new.shape[0]):
        block = table[:, columns]
        block = (
            block.clone(memory_format=torch.contiguous_format) if ids is None else block.index_select(0, ids)
        )
        v_hat[:, columns] = scan_in_place(block, rows, w, write_w, target[:, columns].contiguous(), chunks)
        new[:, columns] = block
    return v_hat


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Where one chunk's tokens lie, and which rows they address."""

    read: slice
    """Its tokens among all that read."""
    own: slice
    """Those of them that write."""
    written: slice
    """The same tokens among all that write."""
    writing: Runs | None
    """Pairs of the writing tokens; None where there are none."""


def scan_in_place(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    chunks: Sequence[Chunk],
) -> Tensor:
    """Read and write chunk by chunk, editing `table`; return what was retrieved."""
    v_hat = table.new_empty(rows.shape[0], table.shape[1])
    for chunk in chunks:
        v_hat[chunk.read] = gathered_sum(w[chunk.read], rows[chunk.read], table)
        if chunk.writing is not None:
            error = v_hat[chunk.own] - target[chunk.written]
            chunk.writing.add_(table, -write_w[chunk.written], error)
    return v_hat


def make_chunks(rows: Tensor, reads: Sequence[int], writes: Sequence[int]) -> list[Chunk]:
    """Say of each chunk which tokens read and which of them write."""
    chunks, r, t = [], 0, 0
    for num_reads, num_writes in zip(reads, writes, strict=True):
        own = slice(r, r + num_writes)
        chunks.append(
            Chunk(
                read=slice(r, r + num_reads),
                own=own,
                written=slice(t, t + num_writes),
                writing=Runs.of(rows[own]) if num_writes else None,
            )
        )
        r, t = r + num_reads, t + num_writes
    return chunks


def _column_blocks(table: Tensor, num_rows: int) -> list[slice]:
    """Cut the columns, which never meet, so that a block of the rows stays in the cache.

    On a CPU alone: a GPU's kernels hide the latency, and each block costs it launches.
    """
    width = table.shape[1]
    if table.device.type == "cpu":
        fitting = _CACHED_BYTES // max(1, num_rows * table.element_size())
        width = min(width, max(_NARROWEST, fitting // _NARROWEST * _NARROWEST))
    return [slice(start, start + width) for start in range(0, table.shape[1], width)]


def scan_back_torch(
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
    """Walk the chunks in reverse from the final `table`, undoing its writes on the way.

    With G = dL/dV after a chunk's write:  u_t = sum_j a_tj G[row_tj],  d target = u,  da_tj = -G[row_tj] . e_t,
    d v^ = (what the reads want) - u;  then  dw_tj = V[row_tj] . d v^_t  and  G[row_tj] += w_tj d v^_t.

    Returns:
        Gradients of the table (empty unless wanted), w, write_w and target.
    """
    chunks, reading = make_chunks(rows, reads, writes), make_chunks(rows, reads, reads)
    d_old = large_empty(tuple(table.shape), table) if wants_table else table.new_empty(0)
    d_target = torch.empty_like(target)
    dw, d_write = torch.zeros_like(w), torch.zeros_like(write_w)
    for columns in _column_blocks(table, table.shape[0]):
        V = table[:, columns].clone(memory_format=torch.contiguous_format)
        G = (
            torch.zeros_like(V)
            if d_table is None
            else d_table[:, columns].clone(memory_format=torch.contiguous_format)
        )
        d_read = d_v_hat[:, columns].clone(memory_format=torch.contiguous_format)
        for chunk, all_reads in zip(reversed(chunks), reversed(reading), strict=True):
            if chunk.writing is not None:
                own, a = rows[chunk.own], write_w[chunk.written]
                error = v_hat[chunk.own, columns] - target[chunk.written, columns]
                chunk.writing.add_(V, a, error)
                u = gathered_sum(a, own, G)
                d_target[chunk.written, columns] = u
                d_write[chunk.written] -= gathered_inner(error, G, own)
                d_read[chunk.own] -= u
            d_chunk = d_read[chunk.read]
            dw[chunk.read] += gathered_inner(d_chunk, V, rows[chunk.read])
            if all_reads.writing is not None:
                all_reads.writing.add_(G, w[chunk.read], d_chunk)
        if wants_table:
            d_old[:, columns] = G
    return d_old, dw, d_write, d_target
