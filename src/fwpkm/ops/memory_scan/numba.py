"""The memory scan as compiled CPU loops. Columns never meet, so each thread walks all chunks of its own."""

import numpy as np
import torch
from torch import Tensor

from fwpkm.ops.memory_scan.loops import scan, scan_back
from fwpkm.ops.threads import run_spans, split_range

_FEWEST_COLUMNS = 64
"""Columns that are worth a thread."""


def scan_(
    table: Tensor,
    rows: Tensor,
    w: Tensor,
    write_w: Tensor,
    target: Tensor,
    reads: list[int],
    writes: list[int],
) -> Tensor:
    """Do what `memory_scan_` does."""
    v_hat = table.new_empty(rows.shape[0], table.shape[1])
    if not rows.numel():
        return v_hat
    _check_rows(rows, table.shape[0])
    spans = split_range(table.shape[1], smallest=_FEWEST_COLUMNS)
    run_spans(scan, spans, table, rows, w, write_w, target, np.array(reads), np.array(writes), v_hat)
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
    reads: list[int],
    writes: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk back from the final table V and its gradient G, which become the first table and its gradient.

    Returns:
        Gradients of w, write_w and target.
    """
    spans = split_range(V.shape[1], smallest=_FEWEST_COLUMNS)
    dw, d_write = (V.new_empty(len(spans), *x.shape) for x in (w, write_w))
    d_target = torch.empty_like(target)
    if not rows.numel():
        return w.new_zeros(w.shape), write_w.new_zeros(write_w.shape), d_target
    run_spans(
        scan_back,
        spans,
        V,
        G,
        rows,
        w,
        write_w,
        target,
        v_hat,
        d_v_hat,
        np.array(reads),
        np.array(writes),
        dw,
        d_write,
        d_target,
    )
    return dw.sum(0), d_write.sum(0), d_target


def _check_rows(rows: Tensor, num_rows: int) -> None:
    """Compiled loops look up what they are told to: a row that is not there must not reach them."""
    least, most = (int(x) for x in rows.aminmax())
    if least < 0 or most >= num_rows:
        raise IndexError(f"memory_scan: rows must be in [0, R), got {least} to {most} with R={num_rows}")
