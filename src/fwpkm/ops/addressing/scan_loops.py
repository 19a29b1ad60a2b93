"""The compiled loops of addressing many windows in one go: sub-keys are moved in place, and only where tokens read.

What is kept per window lies window behind window in flat arrays: [S, 2, H, M, k] each. An *item* is one half of one
stream's sub-keys: 2 S of them, which have nothing to do with each other. A *cell* is a sub-key of a head: h * n + id.
The *strength* of a sub-key for a query is what its softmax is proportional to, e to the power of its score: for "idw"
1 / (|q - K|^2 + eps), which is also half of what the score's gradient is made of, so nothing but it is kept.
"""

import math
from typing import no_type_check

import numpy as np

from fwpkm.ops.addressing.constants import ENTROPY_EPS, IDW_EPS
from fwpkm.ops.addressing.loops import best_pairs, new_room, top
from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.rows import add_row, add_weighted_rows, copy_row, inner, inner_rows


@jit_inline
@no_type_check
def row_of(a, m, S, M, written):
    """Number a window's token among all streams' tokens, of which the written ones come first."""
    return a * written + m if m < written else S * written + a * (M - written) + m - written


@jit
@no_type_check
def find_window(first, last, part, near, squares, q, start, written, num_slots, idw, g, i, place, best, cell):
    """Find the best sub-keys, then the best pairs of these, for the tokens from `start` on, given  near = q . K .

    What is in `near` is used up. Slots are numbered through all streams: stream * num_slots + slot. squares: |K|^2
    [S * 2, H * n]. g: strengths.
    """
    S, _, H, M, n = near.shape
    k, d = g.shape[-1], q.shape[-1] // 2
    pair, room = np.empty(k, dtype=np.int64), new_room(near, n, k)
    ids, s = np.empty((2, k), dtype=np.int64), np.empty((2, k), dtype=near.dtype)
    for token in range(first, last):
        a, h, m = token // (H * M), token // M % H, token % M
        for half in range(2):
            query, row_near = q[a, start + m, h][half * d : half * d + d], near[a, half, h, m]
            if idw:
                rank(row_near, squares[2 * a + half][h * n : h * n + n])
            top(row_near, s[half], ids[half], room)
            weigh(s[half], inner(query, query, d), idw, g[a, half, h, m])
        row = row_of(a, m, S, M, written)
        best_pairs(s[0], s[1], best[row, h], pair)
        for j in range(k):
            own, other = pair[j] // k, pair[j] % k
            place[a, 0, h, m, j] = own
            place[a, 1, h, m, j] = other
            i[a, 0, h, m, j] = ids[0, j]
            i[a, 1, h, m, j] = ids[1, j]
            cell[row, h, j] = a * num_slots + ids[0, own] * n + ids[1, other]


@jit_inline
@no_type_check
def rank(near, squares):
    """near = 2 near - |K|^2 ."""
    two = near.dtype.type(2)
    for c in range(near.shape[0]):
        near[c] = two * near[c] - squares[c]


@jit_inline
@no_type_check
def weigh(values, square, idw, g):
    """Make the best ranks scores, best first, and give their strengths; |q|^2 is given."""
    one, eps = g.dtype.type(1), g.dtype.type(IDW_EPS)
    for j in range(values.shape[0]):
        if idw:
            distance = square - values[j]
            if distance < 0:
                distance = g.dtype.type(0)
            values[j] = -math.log(distance + eps)
            g[j] = one / (distance + eps)
        else:
            g[j] = math.exp(values[j] - values[0])


@jit_inline
@no_type_check
def pool_half(g, i, steps, P, p):
    """Take each strength's share [H, M, k] for the first tokens, and its mean per sub-key, the heads together."""
    H, _, k = g.shape
    scale = p.dtype.type(1) / p.dtype.type(H * steps)
    p[:] = 0
    for h in range(H):
        for m in range(steps):
            kept, share, total = g[h, m], P[h, m], p.dtype.type(0)
            for j in range(k):
                total += kept[j]
            for j in range(k):
                share[j] = kept[j] / total
                p[i[h, m, j]] += share[j]
    for c in range(p.shape[0]):
        p[c] *= scale
    return scale


@jit_inline
@no_type_check
def number_touched(i, n, tokens, number, cells):
    """Number the cells that the first tokens read, as they come; return how many there are. `number` is -1 before."""
    touched = 0
    for h in range(i.shape[0]):
        for m in range(tokens):
            for j in range(i.shape[2]):
                cell = h * n + i[h, m, j]
                if number[cell] < 0:
                    number[cell] = touched
                    cells[touched] = cell
                    touched += 1
    return touched


@jit_inline
@no_type_check
def slopes_of_entropy(p, z, slope):
    """z = phi(p)  and  slope = phi'(p) ; most sub-keys were not read, and need no logarithm."""
    eps, one = p.dtype.type(ENTROPY_EPS), p.dtype.type(1)
    lowest, steepest = p.dtype.type(math.log(eps)), p.dtype.type(2) / eps
    for c in range(p.shape[0]):
        z[c], slope[c] = lowest, steepest
        if p[c] != 0:
            inverse = one / (p[c] + eps)
            z[c] = p.dtype.type(math.log(p[c] + eps)) + p[c] * inverse
            slope[c] = inverse + eps * inverse * inverse


@jit
@no_type_check
def step_window(
    first, last, part, window, g, i, q, start, steps, eta, idw, keys, squares, log_cell, log_row, log_end
):
    """Move the sub-keys of items [first, last) one step, in place; note what they were before.

    keys: [S * 2, H * n, d], squares likewise without d.
    """
    H, k = g.shape[2], g.shape[4]
    cells_all, d = keys.shape[1:]
    n, most = cells_all // H, min(cells_all, H * steps * k)
    P, p = np.empty((H, steps, k), dtype=g.dtype), np.empty(n, dtype=g.dtype)
    z, slope = np.empty(n, dtype=g.dtype), np.empty(n, dtype=g.dtype)
    number, cells = np.full(cells_all, -1), np.empty(most, dtype=np.int64)
    pulled, weight = np.empty((most, d), dtype=g.dtype), np.empty(most, dtype=g.dtype)
    rate, two = g.dtype.type(eta), g.dtype.type(2)
    for item in range(first, last):
        a, half = item // 2, item % 2
        own_g, own_i, K = g[a, half], i[a, half], keys[item]
        scale = pool_half(own_g, own_i, steps, P, p)
        slopes_of_entropy(p, z, slope)
        touched = number_touched(own_i, n, steps, number, cells)
        pulled[:touched] = 0
        weight[:touched] = 0
        for h in range(H):
            for m in range(steps):
                query, mean = q[a, start + m, h][half * d : half * d + d], g.dtype.type(0)
                for j in range(k):
                    mean += P[h, m, j] * z[own_i[h, m, j]]
                for j in range(k):
                    c = P[h, m, j] * (z[own_i[h, m, j]] - mean) * scale
                    if idw:
                        c *= two * own_g[h, m, j]
                    r = number[h * n + own_i[h, m, j]]
                    add_row(c, query, pulled[r], d)
                    weight[r] += c
        at = log_end[item, window]
        for r in range(touched):
            cell = cells[r]
            number[cell] = -1
            if log_cell.shape[1] > 0:
                log_cell[item, at] = cell
                copy_row(K[cell], log_row[item, at], d)
                at += 1
            if idw:
                add_row(-weight[r], K[cell], pulled[r], d)
            add_row(-rate, pulled[r], K[cell], d)
            if idw:
                squares[item, cell] = inner(K[cell], K[cell], d)
        log_end[item, window + 1] = at


@jit
@no_type_check
def walk_back(
    first,
    last,
    part,
    plan,
    g_all,
    i_all,
    place_all,
    q,
    d_best,
    eta,
    idw,
    keys,
    D,
    log_cell,
    log_row,
    log_end,
    dq,
):
    """Walk back through all windows: undo the key steps, and take the gradients of queries and of the first keys.

    plan: Of each window, its first token, tokens, written tokens, stepping tokens, first row, and first pair.
    keys, D: The last sub-keys and their gradient [S * 2, H * n, d]; become those of the first ones.
    dq: Zeros [S, T, H, 2 d]; added to.
    """
    S, _, H, width = q.shape
    k, cells_all, d = d_best.shape[-1], keys.shape[1], width // 2
    n, longest = cells_all // H, plan[:, 1].max()
    most = min(cells_all, H * longest * k)
    P, b = np.empty((H, longest, k), dtype=q.dtype), np.empty((H, longest, k), dtype=q.dtype)
    p, z = np.empty(n, dtype=q.dtype), np.empty(n, dtype=q.dtype)
    slope, dp = np.empty(n, dtype=q.dtype), np.empty(n, dtype=q.dtype)
    number, cells = np.full(cells_all, -1), np.empty(most, dtype=np.int64)
    pulled, weight = np.empty((most, d), dtype=q.dtype), np.empty(most, dtype=q.dtype)
    by_E, across = np.empty(most, dtype=q.dtype), np.empty(most, dtype=q.dtype)
    ds, c, e = np.empty(k, dtype=q.dtype), np.empty(k, dtype=q.dtype), np.empty(k, dtype=q.dtype)
    rate, zero, one, two = q.dtype.type(eta), q.dtype.type(0), q.dtype.type(1), q.dtype.type(2)
    for item in range(first, last):
        a, half = item // 2, item % 2
        K, G = keys[item], D[item]
        for window in range(plan.shape[0] - 1, -1, -1):
            start, M, written = plan[window, 0], plan[window, 1], plan[window, 2]
            steps, row, pair = plan[window, 3], plan[window, 4], plan[window, 5]
            size = 2 * S * H * M * k
            g = g_all[pair : pair + size].reshape((S, 2, H, M, k))[a, half]
            i = i_all[pair : pair + size].reshape((S, 2, H, M, k))[a, half]
            place = place_all[pair : pair + size].reshape((S, 2, H, M, k))[a, half]
            for at in range(log_end[item, window], log_end[item, window + 1]):
                copy_row(log_row[item, at], K[log_cell[item, at]], d)
            touched = number_touched(i, n, M, number, cells)
            scale = zero
            for r in range(touched):
                pulled[r][:] = 0
                weight[r], by_E[r] = 0, 0
                across[r] = inner(K[cells[r]], G[cells[r]], d) if idw and steps > 0 else zero
            if steps > 0:
                scale = pool_half(g, i, steps, P, p)
                slopes_of_entropy(p, z, slope)
                pull_of_step(g, i, q[a], start, steps, half, P, scale, rate, idw, G, number, across, b, dp)
                for own in range(n):
                    dp[own] *= slope[own]
            for h in range(H):
                for m in range(M):
                    query = q[a, start + m, h][half * d : half * d + d]
                    out = dq[a, start + m, h][half * d : half * d + d]
                    wanted = d_best[row + row_of(a, m, S, M, written), h]
                    ds[:] = 0
                    for j in range(k):
                        ds[place[h, m, j]] += wanted[j]
                    if m < steps:
                        through_step(i[h, m], P[h, m], b[h, m], z, dp, scale, ds, e)
                    else:
                        e[:] = 0
                    total = zero
                    for j in range(k):
                        c[j] = ds[j]
                        if idw:
                            inverse = two * g[h, m, j]
                            c[j] *= inverse
                            if m < steps:
                                c[j] += b[h, m, j] * e[j] * inverse
                                e[j] *= inverse
                        total += c[j]
                    for j in range(k):
                        r = number[h * n + i[h, m, j]]
                        weight[r] += c[j]
                        by_E[r] += e[j]
                        e[j] *= -rate
                        add_row(c[j], query, pulled[r], d)
                    add_weighted_rows(c, i[h, m], K[h * n : h * n + n], out)
                    if m < steps:
                        add_weighted_rows(e, i[h, m], G[h * n : h * n + n], out)
                    if idw:
                        add_row(-total, query, out, d)
            for r in range(touched):
                cell = cells[r]
                number[cell] = -1
                if idw:
                    grow = one + rate * by_E[r]
                    for x in range(d):
                        G[cell, x] = G[cell, x] * grow + pulled[r, x] - weight[r] * K[cell, x]
                else:
                    add_row(one, pulled[r], G[cell], d)


@jit_inline
@no_type_check
def pull_of_step(g, i, q, start, steps, half, P, scale, rate, idw, G, number, across, b, dp):
    """b = E . ds/dK  with  E = - rate G ;  and the part of dL/dz that all tokens of a sub-key share, before phi'."""
    H, _, k = g.shape
    n, d = dp.shape[0], G.shape[1]
    dp[:] = 0
    for h in range(H):
        for m in range(steps):
            query, mean, out = q[start + m, h][half * d : half * d + d], dp.dtype.type(0), b[h, m]
            inner_rows(query, i[h, m], G[h * n : h * n + n], out)
            for j in range(k):
                out[j] = -rate * (out[j] - across[number[h * n + i[h, m, j]]])
                if idw:
                    out[j] *= dp.dtype.type(2) * g[h, m, j]
                mean += P[h, m, j] * out[j]
            for j in range(k):
                dp[i[h, m, j]] += P[h, m, j] * (out[j] - mean) * scale


@jit_inline
@no_type_check
def through_step(ids, share, b, z, dp, scale, ds, e):
    """Add to ds what acts through the scores of the key step; e = dL/ds ."""
    k, dtype = ids.shape[0], ds.dtype
    z_mean, b_mean, mean = dtype.type(0), dtype.type(0), dtype.type(0)
    for j in range(k):
        z_mean += share[j] * z[ids[j]]
        b_mean += share[j] * b[j]
    for j in range(k):
        zj = z[ids[j]]
        e[j] = share[j] * (zj - z_mean) * scale
        mean += share[j] * ((b[j] * (zj - z_mean) - zj * b_mean + dp[ids[j]]) * scale)
    for j in range(k):
        zj = z[ids[j]]
        ds[j] += share[j] * ((b[j] * (zj - z_mean) - zj * b_mean + dp[ids[j]]) * scale - mean)
