"""The memory scan as compiled CPU loops, the tokens of each chunk shared out among the threads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fwpkm.ops.memory_scan import loops
from fwpkm.ops.threads import Span, array_of, run_spans, split_range

_FEWEST_NUMBERS = 1 << 16
"""Numbers of the table that are worth a thread."""


def scan_(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: Sequence[int],
    writes: Sequence[int],
) -> Tensor:
    """Do what `memory_scan_` does."""
    v_hat = table.new_empty(rows.shape[0], table.shape[1])
    if not rows.numel():
        return v_hat
    _check_rows(rows, table.shape[0])
    V, ids, out, w_all, a_all, aim = (array_of(x) for x in (table, rows, v_hat, w, write_w, target))
    for chunk in _chunks(V, ids, reads, writes):
        r, t = chunk.read, chunk.written
        args = (V, ids[r], w_all[r], a_all[t], aim[t], chunk.alone, out[r])
        run_spans(loops.read_and_write, chunk.tokens, *args)
        run_spans(
            loops.write_shared,
            chunk.shared,
            V,
            ids[r],
            V.dtype.type(1),
            a_all[t],
            out[r],
            aim[t],
            *chunk.groups,
        )
    return v_hat


def scan_back_(
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
    """Walk back from the final table V and its gradient G, which become the first table and its gradient.

    Returns:
        Gradients of w, write_w and target.
    """
    dw, d_write, d_target = torch.zeros_like(w), torch.zeros_like(write_w), torch.empty_like(target)
    if not rows.numel():
        return dw, d_write, d_target
    table, grad, ids, w_all, a_all, aim = (array_of(x) for x in (V, G, rows, w, write_w, target))
    got, d_got, d_w, d_a, d_aim = (array_of(x) for x in (v_hat, d_v_hat, dw, d_write, d_target))
    d_read = np.empty((max(reads), table.shape[1]), dtype=table.dtype)
    for chunk in _chunks(table, ids, reads, writes, backwards=True):
        r, t = chunk.read, chunk.written
        run_spans(
            loops.write_shared,
            chunk.shared,
            table,
            ids[r],
            table.dtype.type(-1),
            a_all[t],
            got[r],
            aim[t],
            *chunk.groups,
        )
        args = (table, grad, ids[r], w_all[r], a_all[t], got[r], aim[t], d_got[r], chunk.alone)
        run_spans(loops.walk_back, chunk.tokens, *args, d_w[r], d_a[t], d_aim[t], d_read)
        run_spans(loops.add_shared, chunk.shared, grad, ids[r], w_all[r], d_read, *chunk.groups)
    return dw, d_write, d_target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """Where one chunk's tokens lie, and which of their pairs share a row."""

    read: slice
    written: slice
    alone: np.ndarray
    groups: tuple[np.ndarray, np.ndarray]
    tokens: list[Span]
    shared: list[Span]


def _chunks(
    V: np.ndarray, rows: np.ndarray, reads: Sequence[int], writes: Sequence[int], *, backwards: bool = False
) -> Iterator[_Chunk]:
    """Go through the chunks that have tokens. What is yielded is valid until the next one."""
    most, J = max(reads), rows.shape[1]
    count, alone = np.zeros(V.shape[0], dtype=np.int64), np.empty((most, J), dtype=np.bool_)
    order, start = np.empty(most * J, dtype=np.int64), np.empty(most * J + 1, dtype=np.int64)
    ends = list(zip(np.cumsum(reads).tolist(), np.cumsum(writes).tolist(), reads, writes, strict=True))
    fewest = max(1, _FEWEST_NUMBERS // max(1, J * V.shape[1]))
    for r, t, num_reads, num_writes in reversed(ends) if backwards else ends:
        if not num_reads:
            continue
        read = slice(r - num_reads, r)
        num_shared = loops.find_shared(rows[read], count, alone, order, start)
        shared = split_range(num_shared, smallest=max(1, fewest // 4)) if num_shared else []
        yield _Chunk(
            read=read,
            written=slice(t - num_writes, t),
            alone=alone,
            groups=(order, start),
            tokens=split_range(num_reads, smallest=fewest),
            shared=shared,
        )


def _check_rows(rows: Tensor, num_rows: int) -> None:
    """Compiled loops look up what they are told to: a row that is not there must not reach them."""
    least, most = (int(x) for x in rows.aminmax())
    if least < 0 or most >= num_rows:
        raise IndexError(f"memory_scan: rows must be in [0, R), got {least} to {most} with R={num_rows}")
