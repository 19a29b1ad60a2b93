"""The compiled loops of the memory scan, each over the columns [lo, hi) of all rows."""

from typing import no_type_check

import numpy as np

from fwpkm.ops.jit import jit
from fwpkm.ops.rows import add_row, copy_row, inner, subtract_rows, weighted_rows


@jit
@no_type_check
def scan(lo, hi, part, V, rows, w, write_w, target, reads, writes, v_hat):
    """Read and write chunk after chunk."""
    pairs = new_pairs(V, rows, writes)
    error = np.empty((writes.max(), hi - lo), dtype=V.dtype)
    r, t = 0, 0
    for c in range(reads.shape[0]):
        for m in range(r, r + reads[c]):
            weighted_rows(w[m], rows[m], V, lo, hi, v_hat[m][lo:hi])
        for m in range(writes[c]):
            subtract_rows(target[t + m][lo:hi], v_hat[r + m][lo:hi], error[m])
        write_chunk(lo, hi, V, rows[r : r + writes[c]], write_w[t : t + writes[c]], error, pairs)
        r += reads[c]
        t += writes[c]


@jit
@no_type_check
def scan_back(
    lo, hi, part, V, G, rows, w, write_w, target, v_hat, d_v_hat, reads, writes, dw, d_write, d_target
):
    """Undo chunk after chunk, last one first, and gather the gradients."""
    pairs = new_pairs(V, rows, reads)
    buffer = np.empty((reads.max(), hi - lo), dtype=V.dtype)
    r, t = rows.shape[0], target.shape[0]
    for c in range(reads.shape[0] - 1, -1, -1):
        r -= reads[c]
        t -= writes[c]
        for m in range(writes[c]):
            subtract_rows(v_hat[r + m][lo:hi], target[t + m][lo:hi], buffer[m])
        write_chunk(lo, hi, V, rows[r : r + writes[c]], write_w[t : t + writes[c]], buffer, pairs)
        for m in range(writes[c]):
            u = d_target[t + m][lo:hi]
            weighted_rows(write_w[t + m], rows[r + m], G, lo, hi, u)
            for j in range(rows.shape[1]):
                d_write[part, t + m, j] = -inner(buffer[m], G[rows[r + m, j]][lo:hi])
            subtract_rows(d_v_hat[r + m][lo:hi], u, buffer[m])
        for m in range(writes[c], reads[c]):
            copy_row(d_v_hat[r + m][lo:hi], buffer[m])
        for m in range(reads[c]):
            for j in range(rows.shape[1]):
                dw[part, r + m, j] = inner(buffer[m], V[rows[r + m, j]][lo:hi])
        write_chunk(lo, hi, G, rows[r : r + reads[c]], w[r : r + reads[c]], buffer, pairs)


@jit
@no_type_check
def write_chunk(lo, hi, table, rows, weights, x, pairs):
    """table[rows_mj] += weights_mj x_m: a row that several pairs address gets their sum, rounded once."""
    alone, order, start, _ = pairs
    num_shared = find_shared(rows, pairs)
    M, J = rows.shape
    for m in range(M):
        for j in range(J):
            if alone[m, j]:
                add_row(weights[m, j], x[m], table[rows[m, j]][lo:hi])
    total = np.empty(hi - lo, dtype=table.dtype)
    for g in range(num_shared):
        total[:] = 0
        for p in order[start[g] : start[g + 1]]:
            add_row(weights[p // J, p % J], x[p // J], total)
        p = order[start[g]]
        add_row(table.dtype.type(1), total, table[rows[p // J, p % J]][lo:hi])


@jit
@no_type_check
def new_pairs(table, rows, tokens):
    """Return room for what `find_shared` says of one chunk; the last entry is zero before and after it."""
    most, J = tokens.max(), rows.shape[1]
    return (
        np.empty((most, J), dtype=np.bool_),
        np.empty(most * J, dtype=np.int64),
        np.empty(most * J + 1, dtype=np.int64),
        np.zeros(table.shape[0], dtype=np.int64),
    )


@jit
@no_type_check
def find_shared(rows, pairs):
    """Tell pairs that are `alone` on their row from those that share one; return how many rows are shared.

    The pairs of shared row g are order[start[g] : start[g + 1]], numbered m * J + j, in the order of the tokens.
    """
    alone, order, start, count = pairs
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
