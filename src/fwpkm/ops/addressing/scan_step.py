"""The key step of a window, in compiled loops: sub-keys are moved in place, and only where tokens read.

An *item* is one half of one stream's sub-keys: 2 S of them, which have nothing to do with each other. A *cell* is a
sub-key of a head: h * n + id.
"""

import math
from typing import no_type_check

import numpy as np

from fwpkm.ops.addressing.constants import ENTROPY_EPS
from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.pointers import pointer_to
from fwpkm.ops.rows import add_row, copy_row, zero_of


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


@jit_inline
@no_type_check
def step_row(row, pulled, weight, rate, width):
    """row -= rate (pulled - weight row) ;  return its square."""
    total = zero_of(row)
    for x in range(width):
        moved = row[x] - rate * (pulled[x] - weight * row[x])
        row[x] = moved
        total += moved * moved
    return total


@jit_inline
@no_type_check
def new_step_room(like, H, n, steps, k, d):
    """Return what `step_item` works in; `like` has the numbers' type."""
    most = min(H * n, H * steps * k)
    return (
        (np.empty((H, steps, k), dtype=like.dtype), np.empty(n, dtype=like.dtype)),
        (np.empty(n, dtype=like.dtype), np.empty(n, dtype=like.dtype)),
        (np.full(H * n, -1), np.empty(most, dtype=np.int64)),
        (np.empty((most, d), dtype=like.dtype), np.empty(most, dtype=like.dtype)),
    )


@jit
@no_type_check
def step_item(item, window, own, q, keys, squares, eta, idw, g_all, i_all, log_cell, log_row, log_end, room):
    """Move an item's sub-keys one step, in place, and note what they were before.

    own: The window's row of the plan. keys: [S * 2, H * n, d], squares likewise without d. room: As `new_step_room`
    makes it, for this window or longer.
    """
    (S, T, H, width), cells_all, d, k = q.shape, keys.shape[1], keys.shape[2], room[0][0].shape[2]
    (P, p), (z, slope), (number, cells), (pulled, weight) = room
    a, half, n, start, M, steps = item // 2, item % 2, cells_all // H, own[0], own[1], own[3]
    size = 2 * S * H * M * k
    g = g_all[own[5] : own[5] + size].reshape((S, 2, H, M, k))[a, half]
    i = i_all[own[5] : own[5] + size].reshape((S, 2, H, M, k))[a, half]
    rate, two = q.dtype.type(eta), q.dtype.type(2)
    scale = pool_half(g, i, steps, P, p)
    slopes_of_entropy(p, z, slope)
    touched = number_touched(i, n, steps, number, cells)
    pulled[:touched] = 0
    weight[:touched] = 0
    for h in range(H):
        for m in range(steps):
            query, mean = pointer_to(q, ((a * T + start + m) * H + h) * width + half * d), q.dtype.type(0)
            for j in range(k):
                mean += P[h, m, j] * z[i[h, m, j]]
            for j in range(k):
                c = P[h, m, j] * (z[i[h, m, j]] - mean) * scale
                if idw:
                    c *= two * g[h, m, j]
                r = number[h * n + i[h, m, j]]
                add_row(c, query, pointer_to(pulled, r * d), d)
                weight[r] += c
    at = log_end[item, window]
    for r in range(touched):
        cell = cells[r]
        number[cell] = -1
        row = pointer_to(keys, (item * cells_all + cell) * d)
        if log_cell.shape[1] > 0:
            log_cell[item, at] = cell
            copy_row(row, pointer_to(log_row, (item * log_row.shape[1] + at) * d), d)
            at += 1
        square = step_row(row, pointer_to(pulled, r * d), weight[r] if idw else q.dtype.type(0), rate, d)
        if idw:
            squares[item, cell] = square
    log_end[item, window + 1] = at


@jit
@no_type_check
def step_span(
    first, last, part, window, own, q, keys, squares, eta, idw, g, i, log_cell, log_row, log_end, topk
):
    """Move the sub-keys of items [first, last) one step."""
    H, (_, cells, d) = q.shape[2], keys.shape
    room = new_step_room(q, H, cells // H, own[3], topk, d)
    for item in range(first, last):
        step_item(item, window, own, q, keys, squares, eta, idw, g, i, log_cell, log_row, log_end, room)
