"""The same by hashing, in compiled loops."""

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
