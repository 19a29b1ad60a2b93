"""The memory scan as Triton kernels: two launches a chunk and direction, no version of the table kept."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from fwpkm.ops.launch_triton import accumulator, adds_in_order, column_block, on_device, pair_block
from fwpkm.ops.memory_scan.kernels_triton import undo_kernel, unread_kernel
from fwpkm.ops.rows_triton import SortedPairs, add_to_rows, read_rows


def scan_(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: Sequence[int],
    writes: Sequence[int],
) -> Tensor:
    """Do what `memory_scan_` does. `table` is contiguous; numbers that are added to a row are added in its dtype."""
    check_rows(rows, table.shape[0])
    rows, w, write_w, target = (x.contiguous() for x in (rows, w, write_w, target))
    v_hat = table.new_empty(rows.shape[0], table.shape[1])
    ordered = _sorted_writes(rows, reads, writes, table.shape[0])
    for r, m, t, n in _chunks(reads, writes):
        read_rows(w[r : r + m], rows[r : r + m], table, v_hat[r : r + m])
        own, written = slice(r, r + n), slice(t, t + n)
        add_to_rows(
            table, rows[own], write_w[written], v_hat[own], target[written], sign=-1, ordered=ordered, first=t
        )
    return v_hat


def scan_back(
    V: Tensor,
    G: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    v_hat: Tensor,
    d_v_hat: Tensor,
    reads: Sequence[int],
    writes: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk back from the final table `V` and its gradient `G`; both become those of the first table.

    Returns:
        Gradients of w, write_w and target.
    """
    rows, w, write_w, target, v_hat, d_v_hat = (
        x.contiguous() for x in (rows, w, write_w, target, v_hat, d_v_hat)
    )
    num_rows, width = V.shape
    how, blocks = _launch(rows.shape[1], V)
    d_target = V.new_empty(target.shape)  # u takes part in d v^, so it is not narrowed before the end
    dw, da = (V.new_empty(blocks * x.numel()) for x in (w, write_w))  # a part for each block of columns
    writing = _sorted_writes(rows, reads, writes, num_rows)
    reading = SortedPairs.of(rows, list(reads), num_rows) if adds_in_order() else None
    J = rows.shape[1]
    with on_device(V):
        for r, m, t, n in reversed([*_chunks(reads, writes)]):
            read, own, written = slice(r, r + m), slice(r, r + n), slice(t, t + n)
            part_w, part_a = (
                x[blocks * i * J : blocks * j * J] for x, i, j in ((dw, r, r + m), (da, t, t + n))
            )
            if n:
                given = (V, G, rows[own], write_w[written], v_hat[own], target[written])
                undo_kernel[(n, blocks)](*given, d_target[written], part_a, n, n * width, J, width, **how)
            if writing is not None:
                errors = (v_hat[own], target[written])
                add_to_rows(V, rows[own], write_w[written], *errors, ordered=writing, first=t)
            if m:
                given = (V, G, rows[read], w[read], d_v_hat[read], d_target[written])
                unread_kernel[(m, blocks)](*given, part_w, m, n * width, J, width, **how)
            if reading is not None:
                wanted = (d_v_hat[read], d_target[written])
                add_to_rows(G, rows[read], w[read], *wanted, ordered=reading, first=r)
    return _joined(dw, w, reads, blocks), _joined(da, write_w, writes, blocks), d_target.to(target.dtype)


def check_rows(rows: Tensor, num_rows: int) -> None:
    """Refuse rows that are not there, without waiting for the device."""
    if rows.numel():
        inside = (rows.amin() >= 0) & (rows.amax() < num_rows)
        torch._assert_async(inside, f"memory_scan: rows must be in [0, R) with R={num_rows}")


def _chunks(reads: Sequence[int], writes: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Go through the chunks: where its reads begin, how many there are; the same of its writes."""
    r, t = 0, 0
    for m, n in zip(reads, writes, strict=True):
        yield r, m, t, n
        r, t = r + m, t + n


def _sorted_writes(
    rows: Tensor, reads: Sequence[int], writes: Sequence[int], num_rows: int
) -> SortedPairs | None:
    if not adds_in_order():
        return None
    own = [rows[r : r + n] for r, _, _, n in _chunks(reads, writes)]
    return SortedPairs.of(torch.cat(own), list(writes), num_rows) if own else None


def _launch(J: int, table: Tensor) -> tuple[dict[str, Any], int]:
    BD = column_block(table.shape[1])
    how = {"ACC": accumulator(table), "BJ": pair_block(J, BD), "BD": BD, "ATOMIC": not adds_in_order()}
    return how, triton.cdiv(table.shape[1], BD)


def _joined(parts: Tensor, like: Tensor, counts: Sequence[int], blocks: int) -> Tensor:
    """Add up what the blocks of columns found for each pair; a chunk's parts lie one behind the other."""
    if blocks > 1:
        lengths = [blocks * count * like.shape[1] for count in counts]
        parts = torch.cat([part.view(blocks, -1).sum(0) for part in parts.split(lengths)])
    return parts.view(like.shape).to(like.dtype)
