"""The compiled loop back through all windows of addressing: key steps undone, gradients of queries and sub-keys."""

from typing import no_type_check

import numpy as np

from fwpkm.ops.addressing.scan_find import row_of
from fwpkm.ops.addressing.scan_step import number_touched, pool_half, slopes_of_entropy
from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.pointers import pointer_to
from fwpkm.ops.rows import add_row, add_weighted_rows, clear_row, copy_row, inner, inner_rows


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
    S, T, H, width = q.shape
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
        own_cells = item * cells_all
        for window in range(plan.shape[0] - 1, -1, -1):
            start, M, written = plan[window, 0], plan[window, 1], plan[window, 2]
            steps, row, pair = plan[window, 3], plan[window, 4], plan[window, 5]
            size = 2 * S * H * M * k
            g = g_all[pair : pair + size].reshape((S, 2, H, M, k))[a, half]
            i = i_all[pair : pair + size].reshape((S, 2, H, M, k))[a, half]
            place = place_all[pair : pair + size].reshape((S, 2, H, M, k))[a, half]
            for at in range(log_end[item, window], log_end[item, window + 1]):
                noted = pointer_to(log_row, (item * log_row.shape[1] + at) * d)
                copy_row(noted, pointer_to(keys, (own_cells + log_cell[item, at]) * d), d)
            touched = number_touched(i, n, M, number, cells)
            scale = zero
            for r in range(touched):
                clear_row(pointer_to(pulled, r * d), d)
                weight[r], by_E[r] = 0, 0
                at = (own_cells + cells[r]) * d
                across[r] = inner(pointer_to(keys, at), pointer_to(D, at), d) if idw and steps > 0 else zero
            if steps > 0:
                scale = pool_half(g, i, steps, P, p)
                slopes_of_entropy(p, z, slope)
                asked = (a * T + start) * H * width + half * d
                pull_of_step(g, i, q, asked, steps, P, scale, rate, idw, D, own_cells, number, across, b, dp)
                for own in range(n):
                    dp[own] *= slope[own]
            for h in range(H):
                for m in range(M):
                    at = ((a * T + start + m) * H + h) * width + half * d
                    query, out = pointer_to(q, at), pointer_to(dq, at)
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
                        add_row(c[j], query, pointer_to(pulled, r * d), d)
                    add_weighted_rows(c, i[h, m], keys, own_cells + h * n, out, d)
                    if m < steps:
                        add_weighted_rows(e, i[h, m], D, own_cells + h * n, out, d)
                    if idw:
                        add_row(-total, query, out, d)
            for r in range(touched):
                cell = cells[r]
                number[cell] = -1
                G, own = pointer_to(D, (own_cells + cell) * d), pointer_to(pulled, r * d)
                if idw:
                    K, grow = pointer_to(keys, (own_cells + cell) * d), one + rate * by_E[r]
                    for x in range(d):
                        G[x] = G[x] * grow + own[x] - weight[r] * K[x]
                else:
                    add_row(one, own, G, d)


@jit_inline
@no_type_check
def pull_of_step(g, i, q, asked, steps, P, scale, rate, idw, D, own_cells, number, across, b, dp):
    """b = E . ds/dK  with  E = - rate G ;  and the part of dL/dz that all tokens of a sub-key share, before phi'."""
    H, _, k = g.shape
    n, d, width = dp.shape[0], D.shape[2], q.shape[3]
    dp[:] = 0
    for h in range(H):
        for m in range(steps):
            query, mean, out = pointer_to(q, asked + (m * H + h) * width), dp.dtype.type(0), b[h, m]
            inner_rows(query, i[h, m], D, own_cells + h * n, out, d)
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
