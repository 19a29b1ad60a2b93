"""The compiled loops of addressing. A *token* here is one head of one token of one stream: S*H*M of them."""

import math
from typing import no_type_check

import numpy as np

from fwpkm.ops.addressing.constants import IDW_EPS
from fwpkm.ops.jit import jit, jit_inline, jit_inline_without_nan
from fwpkm.ops.rows import add_row, inner, weighted_rows

COLUMNS = 256
"""Columns of a sub-key gradient that are added up in one go."""

_GROUP = 8
"""Scores of which only the best is looked at first."""


@jit_inline
@no_type_check
def insert(v, place, values, ids):
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
def top(row, values, ids, room):
    """Find the largest of a row, best first; a NaN anywhere makes all of them NaN.

    k numbers at least reach the k-th best of any groups' maxima, so nothing below that bound is looked at. Sifting
    without branches is several times faster than one pass that keeps the best so far.
    """
    maxima, coarse, groups, places = room
    for j in range(values.shape[0]):
        values[j] = -np.inf
        ids[j] = j
    if group_maxima(row, maxima) > 0:
        values[:] = np.nan
        return
    group_maxima(maxima, coarse)
    bound = lower_bound(coarse, values.shape[0])
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
            insert(row[d], d, values, ids)


@jit_inline
@no_type_check
def group_maxima(row, maxima):
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
def lower_bound(maxima, k):
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
def new_room(like, n, k):
    """Return what `top` works in, for the k best of n."""
    num_groups = -(-n // _GROUP)
    return (
        np.empty(num_groups, dtype=like.dtype),
        np.empty(min(num_groups, 2 * k), dtype=like.dtype),
        np.empty(num_groups + 1, dtype=np.int64),
        np.empty(n + 1, dtype=np.int64),
    )


@jit
@no_type_check
def find_slots(first, last, part, near, x, idw, s, i, best, slot, place):
    """Find each token's best sub-keys, then the best pairs of these."""
    _, _, H, M, n = near.shape
    k = s.shape[-1]
    pair, room = np.empty(k, dtype=np.int64), new_room(near, n, k)
    for token in range(first, last):
        a, h, m = token // (H * M), token // M % H, token % M
        for half in range(2):
            query = x[a, half, h, m]
            score_half(
                near[a, half, h, m],
                inner(query, query, query.shape[0]),
                idw,
                s[a, half, h, m],
                i[a, half, h, m],
                room,
            )
        best_pairs(s[a, 0, h, m], s[a, 1, h, m], best[a, m, h], pair)
        for j in range(k):
            row, column = pair[j] // k, pair[j] % k
            place[a, 0, h, m, j] = row
            place[a, 1, h, m, j] = column
            slot[a, m, h, j] = i[a, 0, h, m, row] * n + i[a, 1, h, m, column]


@jit_inline
@no_type_check
def score_half(near, square, idw, values, ids, room):
    """Find one half's best sub-keys and their scores, from  2 q . K - |K|^2  ("idw"), |q|^2 given, or  q . K."""
    top(near, values, ids, room)
    if not idw:
        return
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
            insert(v, row * k + column, best, pair)


@jit
@no_type_check
def pool(first, last, part, s, i, P, parts):
    """Take the softmax of each token's kept scores, and add it up per sub-key, the heads together."""
    H, M, k = s.shape[2:]
    for token in range(first, last):
        a, h, m = token // (H * M), token // M % H, token % M
        for half in range(2):
            kept, share = s[a, half, h, m], P[a, half, h, m]
            total = share.dtype.type(0)
            for j in range(k):
                share[j] = math.exp(kept[j] - kept[0])  # best first
                total += share[j]
            for j in range(k):
                share[j] /= total
                parts[part, a, half, i[a, half, h, m, j]] += share[j]


@jit_inline
@no_type_check
def pull_of(share, ids, z, scale, out):
    """out = dL/ds = P (z - sum P z) scale;  return sum P z."""
    mean = share.dtype.type(0)
    for j in range(share.shape[0]):
        mean += share[j] * z[ids[j]]
    for j in range(share.shape[0]):
        out[j] = share[j] * (z[ids[j]] - mean) * scale
    return mean


@jit
@no_type_check
def pull(first, last, part, s, i, P, z, idw, c):
    """c = what each token's query is weighed with in the gradient of its sub-keys."""
    H, M, k = s.shape[2:]
    scale = s.dtype.type(1) / s.dtype.type(H * M)
    for token in range(first, last):
        a, h, m = token // (H * M), token // M % H, token % M
        for half in range(2):
            out = c[a, half, h, m]
            pull_of(P[a, half, h, m], i[a, half, h, m], z[a, half], scale, out)
            if idw:
                for j in range(k):
                    out[j] *= 2 * math.exp(s[a, half, h, m, j])


@jit
@no_type_check
def scatter(first, last, part, d_best, place, ds):
    """Hand the gradients of the best pairs on to the halves' scores."""
    H, M, k = ds.shape[2:]
    for token in range(first, last):
        a, h, m = token // (H * M), token // M % H, token % M
        for half in range(2):
            for j in range(k):
                ds[a, half, h, m, place[a, half, h, m, j]] += d_best[a, m, h, j]


@jit
@no_type_check
def towards(first, last, part, s, i, x, E, across, P, z, idw, b, dp):
    """b = E . ds/dK;  and the part of dL/dz that all tokens of a sub-key share."""
    H, M, k = s.shape[2:]
    scale = s.dtype.type(1) / s.dtype.type(H * M)
    for token in range(first, last):
        a, h, m = token // (H * M), token // M % H, token % M
        for half in range(2):
            ids, share, out = i[a, half, h, m], P[a, half, h, m], b[a, half, h, m]
            mean = share.dtype.type(0)
            for j in range(k):
                out[j] = inner(x[a, half, h, m], E[a, half, h, ids[j]], E.shape[-1])
                if idw:
                    out[j] = 2 * (out[j] - across[a, half, h, ids[j]]) * math.exp(s[a, half, h, m, j])
                mean += share[j] * out[j]
            for j in range(k):
                dp[part, a, half, ids[j]] += share[j] * (out[j] - mean) * scale


@jit
@no_type_check
def step_gradients(first, last, part, s, i, x, keys, E, P, z, b, dp, idw, ds, c, e, dq):
    """Gradients of tokens that took part in the key step: coefficients c, e of keys and E, and queries."""
    H, M, k = s.shape[2:]
    d = x.shape[-1]
    scale = s.dtype.type(1) / s.dtype.type(H * M)
    dP = np.empty(k, dtype=s.dtype)
    for token in range(first, last):
        a, h, m = token // (H * M), token // M % H, token % M
        for half in range(2):
            ids, share, towards_j = i[a, half, h, m], P[a, half, h, m], b[a, half, h, m]
            slope, by_E = c[a, half, h, m], e[a, half, h, m]
            z_mean = pull_of(share, ids, z[a, half], scale, by_E)
            b_mean, dP_mean = share.dtype.type(0), share.dtype.type(0)
            for j in range(k):
                b_mean += share[j] * towards_j[j]
            for j in range(k):
                zj = z[a, half, ids[j]]
                dP[j] = (towards_j[j] * (zj - z_mean) - zj * b_mean + dp[a, half, ids[j]]) * scale
                dP_mean += share[j] * dP[j]
            for j in range(k):
                slope[j] = ds[a, half, h, m, j] + share[j] * (dP[j] - dP_mean)
                if idw:
                    inverse = 2 * math.exp(s[a, half, h, m, j])
                    slope[j] = (slope[j] + towards_j[j] * by_E[j]) * inverse
                    by_E[j] *= inverse
            out = dq[a, m, h][half * d : half * d + d]
            query_gradient(slope, ids, keys[a, half, h], x[a, half, h, m], idw, out)
            for j in range(k):
                add_row(by_E[j], E[a, half, h, ids[j]], out, d)


@jit
@no_type_check
def read_gradients(first, last, part, steps, ds, s, i, x, keys, idw, c, dq):
    """The same for tokens that only read: all but the first `steps`."""
    H, M, k = s.shape[2:]
    d = x.shape[-1]
    for token in range(first, last):
        a, h, m = token // (H * M), token // M % H, token % M
        if m < steps:
            continue
        for half in range(2):
            slope = c[a, half, h, m]
            for j in range(k):
                slope[j] = ds[a, half, h, m, j]
                if idw:
                    slope[j] *= 2 * math.exp(s[a, half, h, m, j])
            out = dq[a, m, h][half * d : half * d + d]
            query_gradient(slope, i[a, half, h, m], keys[a, half, h], x[a, half, h, m], idw, out)


@jit_inline
@no_type_check
def query_gradient(slope, ids, keys, x, idw, out):
    """out = sum_j slope_j K_j, and for "idw" - q sum_j slope_j."""
    weighted_rows(slope, ids, keys, out)
    if idw:
        add_row(-slope.sum(), x, out, out.shape[0])


@jit
@no_type_check
def spread(first, last, part, c, i, x, total):
    """total[sub-key] += c x, a block of columns of one head's half at a time."""
    _, _, H, M, k = c.shape
    d = total.shape[-1]
    blocks = -(-d // COLUMNS)
    for item in range(first, last):
        group, lo = item // blocks, item % blocks * COLUMNS
        hi = min(lo + COLUMNS, d)
        a, half, h = group // (2 * H), group // H % 2, group % H
        for m in range(M):
            query = x[a, half, h, m][lo:hi]
            for j in range(k):
                to = total[a, half, h, i[a, half, h, m, j]]
                add_row(c[a, half, h, m, j], query, to[lo:hi], hi - lo)


@jit
@no_type_check
def per_key_sum(first, last, part, c, i, total):
    """total[sub-key] += c."""
    _, _, H, M, k = c.shape
    for group in range(first, last):
        a, half, h = group // (2 * H), group // H % 2, group % H
        for m in range(M):
            for j in range(k):
                total[a, half, h, i[a, half, h, m, j]] += c[a, half, h, m, j]
