"""The compiled search for the best sub-keys, and the best pairs of them, of one token."""

import math
from typing import no_type_check

import numpy as np

from fwpkm.ops.addressing.constants import IDW_EPS
from fwpkm.ops.jit import jit_inline, jit_inline_without_nan
from fwpkm.ops.pointers import pointer_to
from fwpkm.ops.rows import inner, inner_four

_GROUP = 8
"""Scores of which only the best is looked at first."""


@jit_inline
@no_type_check
def rank_one(query, keys, squares, cell, idw, d, ranks):
    """ranks = 2 q . K - |K|^2  for "idw", else  q . K , for the sub-keys from `cell` on."""
    n, c = ranks.shape[0], 0
    while c + 4 <= n:
        at = (cell + c) * d
        x0, x1, x2, x3 = inner_four(
            query,
            pointer_to(keys, at),
            pointer_to(keys, at + d),
            pointer_to(keys, at + 2 * d),
            pointer_to(keys, at + 3 * d),
            d,
        )
        ranks[c], ranks[c + 1], ranks[c + 2], ranks[c + 3] = x0, x1, x2, x3
        c += 4
    while c < n:
        ranks[c] = inner(query, pointer_to(keys, (cell + c) * d), d)
        c += 1
    if idw:
        square, two = pointer_to(squares, cell), ranks.dtype.type(2)
        for c in range(n):
            ranks[c] = two * ranks[c] - square[c]


@jit_inline
@no_type_check
def _insert(v, place, values, ids):
    """Put a score where it belongs among the best so far, best first; the last one drops out."""
    at = values.shape[0] - 1
    while at > 0 and v > values[at - 1]:
        values[at] = values[at - 1]
        ids[at] = ids[at - 1]
        at -= 1
    values[at] = v
    ids[at] = place


@jit_inline
@no_type_check
def take_best_of_one(row, values, ids, room):
    """Find the largest of a row, best first; a NaN anywhere makes all of them NaN.

    k numbers at least reach the k-th best of any groups' maxima, so nothing below that bound is looked at. Sifting
    without branches is several times faster than one pass that keeps the best so far.
    """
    maxima, coarse, groups, places = room
    for j in range(values.shape[0]):
        values[j] = -np.inf
        ids[j] = j
    if _group_maxima(row, maxima) > 0:
        values[:] = np.nan
        return
    _group_maxima(maxima, coarse)
    bound = _lower_bound(coarse, values.shape[0])
    num_groups, num_places = 0, 0
    for g in range(maxima.shape[0]):
        groups[num_groups] = g
        num_groups += maxima[g] >= bound
    for at in range(num_groups):
        for d in range(groups[at], row.shape[0], maxima.shape[0]):
            places[num_places] = d
            num_places += row[d] >= bound
    for at in range(num_places):
        d = places[at]
        if row[d] > values[-1]:
            _insert(row[d], d, values, ids)


@jit_inline
@no_type_check
def _group_maxima(row, maxima):
    """Take the maximum of every group, the numbers a whole number of groups apart; return how many are NaN."""
    num_groups, num_nan = maxima.shape[0], 0
    maxima[:] = -np.inf
    for start in range(0, row.shape[0], num_groups):
        span = row[start : start + num_groups]
        for g in range(span.shape[0]):
            maxima[g] = span[g] if span[g] > maxima[g] else maxima[g]
            num_nan += span[g] != span[g]
    return num_nan


@jit_inline_without_nan
@no_type_check
def _lower_bound(maxima, k):
    """Return a number that at least k of the maxima reach, minus infinity if there are fewer; uses them up."""
    best = maxima.dtype.type(-np.inf)
    for _ in range(k):
        best = maxima.dtype.type(-np.inf)
        for g in range(maxima.shape[0]):
            best = max(best, maxima[g])
        for g in range(maxima.shape[0]):
            maxima[g] = maxima[g] if maxima[g] < best else maxima.dtype.type(-np.inf)
    return best


@jit_inline
@no_type_check
def room_of_one(like, n, k):
    """Return what `take_best_of_one` works in, for the k best of n."""
    num_groups = -(-n // _GROUP)
    return (
        np.empty(num_groups, dtype=like.dtype),
        np.empty(min(num_groups, 2 * k), dtype=like.dtype),
        np.empty(num_groups + 1, dtype=np.int64),
        np.empty(n + 1, dtype=np.int64),
    )


@jit_inline
@no_type_check
def score_best(values, square):
    """Make the best ranks scores for "idw", |q|^2 given."""
    for j in range(values.shape[0]):
        distance = square - values[j]
        if distance < 0:
            distance = values.dtype.type(0)
        values[j] = -math.log(distance + values.dtype.type(IDW_EPS))


@jit_inline
@no_type_check
def best_pairs(rows, columns, best, pair):
    """Find the best sums of two halves' scores, both best first; see torch.combine_halves for those not looked at."""
    k = rows.shape[0]
    for j in range(k):
        best[j] = rows[0] + columns[j]
        pair[j] = j
    for row in range(1, k):
        for column in range(k // (row + 1)):
            v = rows[row] + columns[column]
            if not v > best[k - 1]:
                break
            _insert(v, row * k + column, best, pair)
