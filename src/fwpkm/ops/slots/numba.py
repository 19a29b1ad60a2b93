"""The same by hashing, in compiled loops."""

from collections.abc import Sequence
from typing import no_type_check

import numpy as np
import torch
from torch import Tensor

from fwpkm.ops.jit import jit
from fwpkm.ops.threads import array_of


def number_cells(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Number the distinct cells in the order in which they come: what is read together then lies together."""
    ids, rows = (
        torch.empty_like(cells).flatten(),
        torch.empty_like(cells, memory_format=torch.contiguous_format),
    )
    size = 1 << max(1, (2 * cells.numel() - 1).bit_length())
    found = _number(array_of(cells).reshape(-1), ids.numpy(), rows.view(-1).numpy(), size)
    return ids[:found], rows


def window_counts(
    rows: Tensor, reads: Sequence[int], writes: Sequence[int], counted: Sequence[int], num_rows: int
) -> Tensor:
    """Count reads window by window."""
    out = rows.new_empty(sum(writes), rows.shape[1])
    tokens = np.array([reads, writes, counted], dtype=np.int64).reshape(3, -1)
    _count(array_of(rows), tokens, np.zeros(num_rows, dtype=np.int32), out.numpy())
    return out


def mark_rows(rows: Tensor, tokens: Tensor, num_rows: int) -> Tensor:
    """Go through the tokens' reads."""
    marked = torch.zeros(num_rows, dtype=torch.bool)
    _mark(array_of(rows), array_of(tokens), marked.numpy())
    return marked


@jit
@no_type_check
def _mark(rows, tokens, marked):
    """Do it for one token after the other."""
    for t in range(tokens.shape[0]):
        for j in range(rows.shape[1]):
            marked[rows[tokens[t], j]] = True


@jit
@no_type_check
def _count(rows, tokens, count, out):
    """Count up, look up, and clear again what was counted."""
    start, to = 0, 0
    for c in range(tokens.shape[1]):
        reads, writes, counted = tokens[0, c], tokens[1, c], tokens[2, c]
        for m in range(start, start + counted):
            for j in range(rows.shape[1]):
                count[rows[m, j]] += 1
        for m in range(writes):
            for j in range(rows.shape[1]):
                out[to + m, j] = max(1, count[rows[start + m, j]])
        for m in range(start, start + counted):
            for j in range(rows.shape[1]):
                count[rows[m, j]] = 0
        start += reads
        to += writes


@jit
@no_type_check
def _number(cells, ids, rows, size):
    """Look every cell up in a table of `size` places, a power of two; walk on where another cell sits."""
    place = np.full(size, -1, dtype=np.int64)
    found = 0
    for p in range(cells.shape[0]):
        at = (cells[p] * 0x9E3779B1 >> 15) & (size - 1)
        while place[at] >= 0 and ids[place[at]] != cells[p]:
            at = (at + 1) & (size - 1)
        if place[at] < 0:
            place[at] = found
            ids[found] = cells[p]
            found += 1
        rows[p] = place[at]
    return found
