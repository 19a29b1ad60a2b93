"""Distinct cells and read counts, by sorting; or by hashing where compiled loops run."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fwpkm.ops.backend import runs_compiled_integers


def number_cells(cells: Int[Tensor, "M J"], num_cells: int) -> tuple[Int[Tensor, " R"], Int[Tensor, "M J"]]:
    """Number the distinct cells, in any order: return them, and the number of each given one.

    When compiling, the list is padded to the most that there could be, so that shapes do not depend on data.

    Args:
        cells: What tokens address.
        num_cells: How many cells there are in all.
    """
    if not torch.compiler.is_compiling() and runs_compiled_integers(cells):
        from fwpkm.ops.slots.numba import number_cells as compiled

        return compiled(cells)
    ordered, order = cells.flatten().sort()
    first = torch.ones_like(ordered)
    first[1:] = ordered[1:] != ordered[:-1]
    rank = first.cumsum(0) - 1
    bound = min(ordered.shape[0], num_cells)
    if not torch.compiler.is_compiling() and ordered.shape[0]:
        bound = int(rank[-1]) + 1
    ids = ordered.new_zeros(bound).scatter(0, rank, ordered)
    return ids, torch.empty_like(rank).scatter(0, order, rank).view(cells.shape)


def read_counts(rows: Int[Tensor, "P J"], counted: Int[Tensor, "*Q J"], num_rows: int) -> Int[Tensor, "P J"]:
    """Count for every row how often it is among `counted`, at least 1; all are below `num_rows`."""
    count = rows.new_zeros(num_rows)
    one = count.new_ones(()).expand(counted.numel())
    return count.scatter_add_(0, counted.flatten(), one)[rows].clamp_min_(1)


def window_counts(
    rows: Int[Tensor, "Tr J"],
    reads: Sequence[int],
    writes: Sequence[int],
    counted: Sequence[int],
    num_rows: int,
) -> Int[Tensor, "Tw J"]:
    """Count for the first writes[c] of every reads[c] tokens how often each row is read by the first counted[c].

    A row that none of these reads counts once. All rows are below `num_rows`.
    """
    if not torch.compiler.is_compiling() and runs_compiled_integers(rows):
        from fwpkm.ops.slots.numba import window_counts as compiled

        return compiled(rows, reads, writes, counted, num_rows)
    parts = zip(rows.split(list(reads)), writes, counted, strict=True)
    return torch.cat([read_counts(part[:m], part[:n], num_rows) for part, m, n in parts])


def mark_rows(
    rows: Int[Tensor, "Tr J"], tokens: Int[Tensor, " Tw"], num_rows: int
) -> Bool[Tensor, " {num_rows}"]:
    """Return which rows some of `tokens` reads; all are below `num_rows`."""
    if not torch.compiler.is_compiling() and runs_compiled_integers(rows):
        from fwpkm.ops.slots.numba import mark_rows as compiled

        return compiled(rows, tokens, num_rows)
    own = rows.index_select(0, tokens)
    return rows.new_zeros(num_rows, dtype=torch.bool).index_fill(0, own.flatten(), True)
