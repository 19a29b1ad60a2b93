"""The compiled loops of the memory scan: one chunk's tokens, then the rows that several of their pairs share.

A pair that is alone on its row may be read and written at once. What shares a row waits until all of the chunk's
tokens are done, and is added up first and rounded once.
"""

from typing import no_type_check

import numpy as np

from fwpkm.ops.jit import jit
from fwpkm.ops.rows import add_row, copy_row, inner, subtract_rows, weighted_rows


@jit
@no_type_check
def read_and_write(first, last, part, V, rows, w, write_w, target, alone, v_hat):
    """Read for tokens [first, last) of a chunk, and write the rows that they alone address."""
    error = np.empty(V.shape[1], dtype=V.dtype)
    for m in range(first, last):
        weighted_rows(w[m], rows[m], V, v_hat[m])
        if m < target.shape[0]:
            subtract_rows(target[m], v_hat[m], error)
            for j in range(rows.shape[1]):
                if alone[m, j]:
                    add_row(write_w[m, j], error, V[rows[m, j]])


@jit
@no_type_check
def write_shared(first, last, part, V, rows, sign, write_w, v_hat, target, order, start):
    """V[row] += sign sum a (target - v^)  over the pairs of shared rows [first, last)."""
    total = np.empty(V.shape[1], dtype=V.dtype)
    J = rows.shape[1]
    for g in range(first, last):
        total[:] = 0
        for p in order[start[g] : start[g + 1]]:
            m, j = p // J, p % J
            if m < target.shape[0]:
                add_row(write_w[m, j], target[m], total)
                add_row(-write_w[m, j], v_hat[m], total)
        p = order[start[g]]
        add_row(sign, total, V[rows[p // J, p % J]])


@jit
@no_type_check
def walk_back(
    first, last, part, V, G, rows, w, write_w, v_hat, target, d_v_hat, alone, dw, d_write, d_target, d_read
):
    """Undo the writes of tokens [first, last) on rows of their own, and take all gradients but G of shared rows.

    u = sum a G ;  d a = - G . e ;  d v^ = d_v_hat - u ;  dw = V . d v^ ;  G += w d v^ .
    """
    error = np.empty(V.shape[1], dtype=V.dtype)
    for m in range(first, last):
        if m < target.shape[0]:
            subtract_rows(v_hat[m], target[m], error)
            weighted_rows(write_w[m], rows[m], G, d_target[m])
            for j in range(rows.shape[1]):
                d_write[m, j] = -inner(error, G[rows[m, j]])
                if alone[m, j]:
                    add_row(write_w[m, j], error, V[rows[m, j]])
            subtract_rows(d_v_hat[m], d_target[m], d_read[m])
        else:
            copy_row(d_v_hat[m], d_read[m])
        for j in range(rows.shape[1]):
            dw[m, j] = inner(d_read[m], V[rows[m, j]])
            if alone[m, j]:
                add_row(w[m, j], d_read[m], G[rows[m, j]])


@jit
@no_type_check
def add_shared(first, last, part, G, rows, w, d_read, order, start):
    """G[row] += sum w d v^  over the pairs of shared rows [first, last)."""
    total = np.empty(G.shape[1], dtype=G.dtype)
    J = rows.shape[1]
    for g in range(first, last):
        total[:] = 0
        for p in order[start[g] : start[g + 1]]:
            add_row(w[p // J, p % J], d_read[p // J], total)
        p = order[start[g]]
        add_row(G.dtype.type(1), total, G[rows[p // J, p % J]])


@jit
@no_type_check
def find_shared(rows, count, alone, order, start):
    """Tell pairs that are `alone` on their row from those that share one; return how many rows are shared.

    The pairs of shared row g are order[start[g] : start[g + 1]], numbered m * J + j, in the order of the tokens.
    `count` is zero for every row, before and after.
    """
    M, J = rows.shape
    for m in range(M):
        for j in range(J):
            count[rows[m, j]] += 1
    used, num_shared = 0, 0
    for m in range(M):
        for j in range(J):
            i = rows[m, j]
            alone[m, j] = count[i] == 1
            if count[i] > 1:  # seen first: from now on, minus one minus the place of the row's next pair
                start[num_shared] = used
                num_shared += 1
                used += count[i]
                count[i] = count[i] - used - 1
            if count[i] < 0:
                order[-1 - count[i]] = m * J + j
                count[i] -= 1
    start[num_shared] = used
    for m in range(M):
        for j in range(J):
            count[rows[m, j]] = 0
    return num_shared
