"""The compiled search for the best sub-keys, and the best pairs of them, of as many tokens as a vector has lanes.

Ranks of all sub-keys are taken by products in registers and lie sub-key behind sub-key, the tokens beside each other.
They need not leave the core's cache: what a search needs of them is found before the next tokens' come.
"""

import math
from typing import no_type_check

import numpy as np

from fwpkm.ops.addressing.constants import IDW_EPS
from fwpkm.ops.addressing.product import ROWS, rank_row, rank_rows
from fwpkm.ops.addressing.search_one import rank_one, room_of_one, take_best_of_one
from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.lanes import (
    bits_at_least,
    load,
    lowest_bit,
    new_whole,
    num_lanes,
    spread,
    store,
    sum_of,
    times_plus,
    where_larger,
    where_nan,
)
from fwpkm.ops.pointers import pointer_to
from fwpkm.ops.rows import inner

_FEW = 3
"""A search of one token takes as long as that of so many lanes."""


@jit_inline
@no_type_check
def num_blocks(tokens, like):
    """Return how many searches so many tokens take; `like` has their type."""
    return -(-tokens // num_lanes(like))


@jit_inline
@no_type_check
def new_room(like, n, d, k):
    """Return what a search for k of n sub-keys of width d works in; `like` has their type."""
    lanes, groups = num_lanes(like), min(n, 2 * k)
    queries, square = np.empty((d, lanes), dtype=like.dtype), np.empty(lanes, dtype=like.dtype)
    ranks, maxima = np.empty((n, lanes), dtype=like.dtype), np.empty((groups, lanes), dtype=like.dtype)
    hits = np.empty(n + 1, dtype=np.int64), np.empty(n + 1, dtype=np.uint64)
    candidates = np.empty((n, lanes), dtype=like.dtype), new_whole(like, n), np.empty(lanes, dtype=np.int64)
    own, own_ids = np.empty(k, dtype=like.dtype), np.empty(k, dtype=np.int64)
    of_one = np.empty(n, dtype=like.dtype), own, own_ids, room_of_one(like, n, k)
    return queries, square, ranks, maxima, hits, candidates, of_one


@jit_inline
@no_type_check
def new_found(like, k):
    """Return room for what `find_best` finds: the halves' scores, strengths and ids; scores and places of pairs."""
    lanes = num_lanes(like)
    scores, strengths = np.empty((2, k, lanes), dtype=like.dtype), np.empty((2, k, lanes), dtype=like.dtype)
    ids = new_whole(like, 2 * k).reshape((2, k, lanes))
    return scores, strengths, ids, np.empty((k, lanes), dtype=like.dtype), new_whole(like, k)


@jit
@no_type_check
def find_best(q, first, apart, across, tokens, keys, squares, cell, cells_apart, idw, room, found):
    """Find the best sub-keys of both halves and the best pairs of these, best first, for up to `num_lanes` tokens.

    q: Queries; the first token's first half begins at its number `first`, the next token's `apart` numbers behind, the
    second half `across` behind.
    keys: Sub-keys [..., d] and their squares [...]; a half's begin at `cell`, the other's `cells_apart` behind.
    room: As `new_room` makes it. found: As `new_found` makes it, all with tokens last; a pair a, b is a k + b.
    """
    queries, square, ranks, maxima, hits, candidates, of_one = room
    scores, strengths, ids, best, pair = found
    for half in range(2):
        start, own, own_cell = first + half * across, scores[half], cell + half * cells_apart
        if _FEW * tokens < num_lanes(q):
            find_one_by_one(
                q, start, apart, tokens, keys, squares, own_cell, idw, of_one, square, own, ids[half]
            )
        else:
            lay_beside(q, start, apart, tokens, queries, square)
            rank_all(keys, squares, own_cell, idw, queries, ranks)
            take_best(ranks, maxima, hits, candidates, own, ids[half])
        weigh(own, tokens, square, idw, strengths[half])
    join_halves(scores[0], scores[1], best, pair)


@jit_inline
@no_type_check
def find_one_by_one(q, first, apart, tokens, keys, squares, cell, idw, of_one, square, values, ids):
    """Find each token's largest ranks, and |q|^2, without the work of lanes that stay empty."""
    (ranks, own, own_ids, room), d = of_one, keys.shape[-1]
    for t in range(tokens):
        query = pointer_to(q, first + t * apart)
        rank_one(query, keys, squares, cell, idw, d, ranks)
        take_best_of_one(ranks, own, own_ids, room)
        square[t] = inner(query, query, d)
        for j in range(own.shape[0]):
            values[j, t], ids[j, t] = own[j], own_ids[j]


@jit_inline
@no_type_check
def lay_beside(q, first, apart, tokens, queries, square):
    """Lay tokens' queries beside each other, a column each, zeros behind the last; square = |q|^2."""
    d, lanes = queries.shape
    asked, beside, out = pointer_to(q, first), pointer_to(queries, 0), pointer_to(square, 0)
    total = spread(0, out)
    for x in range(d):
        for t in range(tokens):
            beside[x * lanes + t] = asked[t * apart + x]
        for t in range(tokens, lanes):
            beside[x * lanes + t] = 0
    for x in range(d):
        numbers = load(beside, x * lanes)
        total = times_plus(numbers, numbers, total)
    store(total, out, 0)


@jit_inline
@no_type_check
def rank_all(keys, squares, cell, idw, queries, ranks):
    """ranks = 2 q . K - |K|^2  for "idw", else  q . K , whose squares are zeros."""
    (n, lanes), d, c = ranks.shape, queries.shape[0], 0
    scale = ranks.dtype.type(2) if idw else ranks.dtype.type(1)
    beside = pointer_to(queries, 0)
    while c + ROWS <= n:
        own, square = pointer_to(keys, (cell + c) * d), pointer_to(squares, cell + c)
        rank_rows(own, d, beside, scale, square, pointer_to(ranks, c * lanes))
        c += ROWS
    while c < n:
        own, square = pointer_to(keys, (cell + c) * d), pointer_to(squares, cell + c)
        rank_row(own, d, beside, scale, square, pointer_to(ranks, c * lanes))
        c += 1


@jit_inline
@no_type_check
def take_best(ranks, maxima, hits, candidates, values, ids):
    """Find each token's largest ranks, best first; a NaN anywhere makes all of a token's NaN.

    k numbers at least reach the k-th best of any groups' maxima, so nothing below that bound is looked at.
    """
    (k, lanes), best = values.shape, pointer_to(values, 0)
    lowest = spread(-np.inf, best)
    for j in range(k):
        store(lowest, best, j * lanes)
    bad = group_maxima(ranks, maxima)
    groups = pointer_to(maxima, 0)
    for g in range(maxima.shape[0]):
        raise_best(load(groups, g * lanes), best, k, lanes)
    most = collect(ranks, load(best, (k - 1) * lanes), hits, candidates)
    kept, kept_ids, count = candidates
    for j in range(k):
        store(lowest, best, j * lanes)
        for t in range(lanes):
            ids[j, t] = j
    own, own_ids, best_ids = pointer_to(kept, 0), pointer_to(kept_ids, 0), pointer_to(ids, 0)
    for j in range(most):
        for t in range(lanes):
            if j >= count[t]:
                kept[j, t] = -np.inf
        insert_best(load(own, j * lanes), load(own_ids, j * lanes), best, best_ids, k, lanes)
    while bad != 0:
        t = lowest_bit(bad)
        bad &= bad - np.uint64(1)
        for j in range(k):
            values[j, t] = np.nan
            ids[j, t] = j


@jit_inline
@no_type_check
def group_maxima(ranks, maxima):
    """Take the maxima of groups, whose sub-keys are a whole number of groups apart; return which tokens have a NaN."""
    (n, lanes), groups = ranks.shape, maxima.shape[0]
    numbers, out = pointer_to(ranks, 0), pointer_to(maxima, 0)
    one, bad = spread(1, out), spread(0, out)
    for g in range(groups):
        store(spread(-np.inf, out), out, g * lanes)
    for first in range(0, n, groups):
        for g in range(min(groups, n - first)):
            own, largest = load(numbers, (first + g) * lanes), load(out, g * lanes)
            store(where_larger(own, largest, own, largest), out, g * lanes)
            bad = where_nan(own, one, bad)
    return bits_at_least(bad, one)


@jit_inline
@no_type_check
def raise_best(x, best, k, lanes):
    """Put each lane's number where it belongs among its k best so far; the last ones drop out."""
    for j in range(k):
        own = load(best, j * lanes)
        store(where_larger(x, own, x, own), best, j * lanes)
        x = where_larger(x, own, own, x)


@jit_inline
@no_type_check
def insert_best(x, name, best, names, k, lanes):
    """Do the same and keep a name with each number; of equal numbers the first stays before."""
    number = x
    for j in range(k):
        own, own_name = load(best, j * lanes), load(names, j * lanes)
        store(where_larger(x, own, number, own), best, j * lanes)
        store(where_larger(x, own, name, own_name), names, j * lanes)
        number, name = where_larger(x, own, own, number), where_larger(x, own, own_name, name)


@jit_inline
@no_type_check
def collect(ranks, bound, hits, candidates):
    """List each token's ranks that reach its bound, and their sub-keys; return the length of the longest list."""
    (n, lanes), numbers = ranks.shape, pointer_to(ranks, 0)
    (rows, masks), (kept, ids, count), num_hits = hits, candidates, 0
    for c in range(n):
        mask = bits_at_least(load(numbers, c * lanes), bound)
        rows[num_hits], masks[num_hits] = c, mask
        num_hits += mask != 0
    count[:] = 0
    for at in range(num_hits):
        c, mask = rows[at], masks[at]
        while mask != 0:
            t = lowest_bit(mask)
            mask &= mask - np.uint64(1)
            j = count[t]
            kept[j, t], ids[j, t], count[t] = ranks[c, t], c, j + 1
    return count.max()


@jit_inline
@no_type_check
def weigh(values, tokens, square, idw, strengths):
    """Make ranks scores, given |q|^2, and give their strengths."""
    k = values.shape[0]
    zero, one, eps = values.dtype.type(0), values.dtype.type(1), values.dtype.type(IDW_EPS)
    for j in range(k):
        for t in range(tokens):
            if idw:
                distance = square[t] - values[j, t]
                distance = (zero if distance < 0 else distance) + eps
                strengths[j, t] = one / distance
                values[j, t] = -math.log(distance)
    if not idw:
        for j in range(k):
            for t in range(tokens):
                strengths[j, t] = math.exp(values[j, t] - values[0, t])


@jit_inline
@no_type_check
def join_halves(rows, columns, best, pair):
    """Find the best sums of two halves' scores, both best first; see torch.combine_halves for those not looked at."""
    k, lanes = best.shape
    own_rows, own_columns = pointer_to(rows, 0), pointer_to(columns, 0)
    sums, pairs = pointer_to(best, 0), pointer_to(pair, 0)
    first = load(own_rows, 0)
    for j in range(k):
        store(sum_of(first, load(own_columns, j * lanes)), sums, j * lanes)
        store(spread(j, pairs), pairs, j * lanes)
    for row in range(1, k):
        own = load(own_rows, row * lanes)
        for column in range(k // (row + 1)):
            x = sum_of(own, load(own_columns, column * lanes))
            insert_best(x, spread(row * k + column, pairs), sums, pairs, k, lanes)
