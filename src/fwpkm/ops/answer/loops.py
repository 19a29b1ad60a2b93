"""The compiled loop that answers single tokens."""

import math
from typing import no_type_check

import numpy as np

from fwpkm.ops.addressing.search_one import best_pairs, rank_one, room_of_one, score_best, take_best_of_one
from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.pointers import pointer_to
from fwpkm.ops.rows import add_kept_row, inner

WEIGHTS = {"softmax": 0, "silu": 1, "relu": 2}


@jit
@no_type_check
def answer(q, keys, squares, base, index, rows, temperature, topk, idw, kind, out):
    """out = sum_j w_j V[slot_j] for every token."""
    B, T, H, Dk = q.shape
    n, half = keys.shape[3], Dk // 2
    near, room = np.empty(n, dtype=q.dtype), room_of_one(q, n, topk)
    s, i = np.empty((2, topk), dtype=q.dtype), np.empty((2, topk), dtype=np.int64)
    w, cell, pair = (
        np.empty(H * topk, dtype=q.dtype),
        np.empty(H * topk, dtype=np.int64),
        np.empty(topk, np.int64),
    )
    for token in range(B * T):
        b, t = token // T, token % T
        a = b if keys.shape[0] > 1 else 0
        table = b if index.shape[0] > 1 else 0
        for h in range(H):
            for side in range(2):
                x = pointer_to(q, ((b * T + t) * H + h) * Dk + side * half)
                rank_one(x, keys, squares, ((2 * a + side) * H + h) * n, idw, half, near)
                take_best_of_one(near, s[side], i[side], room)
                if idw:
                    score_best(s[side], inner(x, x, half))
            best_pairs(s[0], s[1], w[h * topk : h * topk + topk], pair)
            for j in range(topk):
                cell[h * topk + j] = table * n * n + i[0, pair[j] // topk] * n + i[1, pair[j] % topk]
        weigh(w, temperature, kind)
        read_row(w, cell, base, index, rows, out[b, t])


@jit_inline
@no_type_check
def weigh(w, temperature, kind):
    """Turn scores into read weights, in place; see fwpkm.ops.core.weights."""
    for j in range(w.shape[0]):
        w[j] /= temperature
    if kind == 0:
        largest, total = w.max(), w.dtype.type(0)
        for j in range(w.shape[0]):
            w[j] = math.exp(w[j] - largest)
            total += w[j]
        for j in range(w.shape[0]):
            w[j] /= total
    elif kind == 1:
        for j in range(w.shape[0]):
            w[j] /= 1 + math.exp(-w[j])
    else:
        for j in range(w.shape[0]):
            w[j] = w[j] if not w[j] < 0 else 0


@jit_inline
@no_type_check
def read_row(w, cells, base, index, rows, out):
    """out = sum_j w_j V[cell_j], from the written rows or the table under them; no such table is zeros."""
    out[:] = 0
    num_slots = index.shape[1]
    for j in range(w.shape[0]):
        stream, slot = cells[j] // num_slots, cells[j] % num_slots
        row = index[stream, slot]
        if row >= 0:
            add_kept_row(w[j], rows[row], out, out.shape[0])
        elif base.shape[0]:
            add_kept_row(w[j], base[slot], out, out.shape[0])


@jit
@no_type_check
def read(first, last, part, w, cells, base, index, rows, out):
    """Do it for some of the tokens."""
    for m in range(first, last):
        read_row(w[m], cells[m], base, index, rows, out[m])
