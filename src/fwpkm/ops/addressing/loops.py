"""The compiled loops of addressing. A *token* here is one head of one token of one stream: S*H*M of them."""

import math
from typing import no_type_check

import numpy as np

from fwpkm.ops.addressing.search import find_best, new_found, new_room, num_blocks
from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.lanes import num_lanes
from fwpkm.ops.rows import add_row, add_weighted_rows, inner

COLUMNS = 256
"""Columns of a sub-key gradient that are added up in one go."""


@jit
@no_type_check
def find_slots(first, last, part, x, keys, squares, idw, s, i, best, slot, place):
    """Find the best sub-keys, then the best pairs of these, for blocks [first, last) of a head's tokens each."""
    (_, _, H, M, d), n, k, lanes = x.shape, keys.shape[3], s.shape[-1], num_lanes(x)
    blocks, room, found = num_blocks(M, x), new_room(x, n, d, k), new_found(x, k)
    scores, _, ids, sums, pair = found
    for number in range(first, last):
        a, h, start = number // (H * blocks), number // blocks % H, number % blocks * lanes
        tokens, asked = min(lanes, M - start), ((2 * a * H + h) * M + start) * d
        find_best(x, asked, d, H * M * d, tokens, keys, squares, (2 * a * H + h) * n, H * n, idw, room, found)
        for t in range(tokens):
            m = start + t
            for j in range(k):
                row, column = pair[j, t] // k, pair[j, t] % k
                for half in range(2):
                    s[a, half, h, m, j], i[a, half, h, m, j] = scores[half, j, t], ids[half, j, t]
                place[a, 0, h, m, j], place[a, 1, h, m, j] = row, column
                best[a, m, h, j] = sums[j, t]
                slot[a, m, h, j] = ids[0, row, t] * n + ids[1, column, t]


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
    out[:] = 0
    add_weighted_rows(slope, ids, keys, 0, out, out.shape[0])
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
