"""The compiled loops of the memory scan: one chunk's tokens, then the rows that several of their pairs share.

A pair that is alone on its row may be read and written at once. What shares a row waits until all of the chunk's
tokens are done, and is added up first and rounded once. A row that only one chunk touches, as most are in a large
table, is fetched once and stored at most once on either way.
"""

from typing import no_type_check

import numpy as np

from fwpkm.ops.jit import jit
from fwpkm.ops.rows import (
    add_four_rows,
    add_row,
    combine_rows,
    copy_row,
    inner,
    scale_row,
    subtract_rows,
)


@jit
@no_type_check
def read_and_write(
    first,
    last,
    part,
    V,
    place,
    base,
    ids,
    rows,
    w,
    write_w,
    target,
    aims,
    alone,
    fresh,
    v_hat,
    places,
    answer,
):
    """Read for tokens [first, last) of a chunk, and write the rows that they alone address.

    Row r is V[place[r]], once a chunk has touched it; before, see `source_of`. A written token's target is
    target[aims[m]]; what token m reads goes to answer[places[m]] too, unless that is negative.
    """
    J = rows.shape[1]
    error = np.empty(V.shape[1], dtype=V.dtype)
    for m in range(first, last):
        read_token(w[m], rows[m], fresh[m], V, place, base, ids, v_hat[m])
        if places[m] >= 0:
            copy_row(v_hat[m], answer[places[m]])
        writes = m < aims.shape[0]
        if writes:
            subtract_rows(target[aims[m]], v_hat[m], error)
        for j in range(J):
            row = V[place[rows[m, j]]]
            if fresh[m, j]:
                source = source_of(rows[m, j], True, V, place, base, ids)
                if writes:
                    combine_rows(source, write_w[m, j], error, row)
                else:
                    copy_row(source, row)
            elif alone[m, j] and writes:
                add_row(write_w[m, j], error, row)


@jit
@no_type_check
def read_token(w, rows, fresh, V, place, base, ids, out):
    """out = sum_j w_j row_j, fresh rows from where they come from; four are on their way from memory at once."""
    out[:] = 0
    j, J = 0, rows.shape[0]
    while j + 4 <= J:
        add_four_rows(
            w[j],
            source_of(rows[j], fresh[j], V, place, base, ids),
            w[j + 1],
            source_of(rows[j + 1], fresh[j + 1], V, place, base, ids),
            w[j + 2],
            source_of(rows[j + 2], fresh[j + 2], V, place, base, ids),
            w[j + 3],
            source_of(rows[j + 3], fresh[j + 3], V, place, base, ids),
            out,
        )
        j += 4
    while j < J:
        add_row(w[j], source_of(rows[j], fresh[j], V, place, base, ids), out)
        j += 1


@jit
@no_type_check
def source_of(row, fresh, V, place, base, ids):
    """Return where a row's present contents lie: a fresh one's in base[i], or in V[-1 - i] where i = ids[row] < 0."""
    if not fresh:
        return V[place[row]]
    i = ids[row]
    return base[i] if i >= 0 else V[-1 - i]


@jit
@no_type_check
def fetch_rows(V, place, base, ids, wanted):
    """Bring the rows that are wanted to their place."""
    for i in range(wanted.shape[0]):
        if wanted[i]:
            copy_row(source_of(i, True, V, place, base, ids), V[place[i]])


@jit
@no_type_check
def fetch_shared(V, place, base, ids, rows, seen, order, start, num_shared):
    """Bring the shared rows of a chunk that no chunk touched before to their place."""
    J = rows.shape[1]
    for g in range(num_shared):
        p = order[start[g]]
        row = rows[p // J, p % J]
        if not seen[row]:
            copy_row(source_of(row, True, V, place, base, ids), V[place[row]])


@jit
@no_type_check
def write_shared(first, last, part, V, place, rows, sign, write_w, v_hat, target, aims, order, start):
    """row += sign sum a (target - v^)  over the pairs of shared rows [first, last)."""
    total = np.empty(V.shape[1], dtype=V.dtype)
    J = rows.shape[1]
    for g in range(first, last):
        total[:] = 0
        for p in order[start[g] : start[g + 1]]:
            m, j = p // J, p % J
            if m < aims.shape[0]:
                add_row(write_w[m, j], target[aims[m]], total)
                add_row(-write_w[m, j], v_hat[m], total)
        p = order[start[g]]
        add_row(sign, total, V[place[rows[p // J, p % J]]])


@jit
@no_type_check
def walk_back(
    first,
    last,
    part,
    table,
    V,
    G,
    rows,
    w,
    write_w,
    v_hat,
    target,
    aims,
    d_answer,
    places,
    alone,
    later,
    earlier,
    has_G,
    wants_G,
    dw,
    d_write,
    d_target,
    d_read,
):
    """Undo the writes of tokens [first, last) on rows of their own, and take all gradients but G of shared rows.

    u = sum a G ;  d a = - G . e ;  d v^ = d_answer - u ;  dw = V . d v^ ;  G += w d v^ .

    Token m's part of d_answer is at places[m], and zero if that is negative; its target is target[aims[m]].

    A row is in V, undone as far as it goes, if a later chunk touched it, and in the final `table` otherwise; what
    no earlier chunk touched need not be kept. G is zero, and not there, until a chunk has added to it.
    """
    J = rows.shape[1]
    error, before = np.empty(V.shape[1], dtype=V.dtype), np.empty((J, V.shape[1]), dtype=V.dtype)
    for m in range(first, last):
        writes = m < aims.shape[0]
        aim = aims[m] if writes else 0
        if writes:
            subtract_rows(v_hat[m], target[aim], error)
            d_target[aim][:] = 0
        for j in range(J):
            i = rows[m, j]
            if writes and (has_G or later[m, j] or not alone[m, j]):
                d_write[m, j] = -inner(error, G[i])
                add_row(write_w[m, j], G[i], d_target[aim])
            if alone[m, j]:
                source = V[i] if later[m, j] else table[i]
                if writes:
                    combine_rows(source, write_w[m, j], error, before[j])
                else:
                    copy_row(source, before[j])
        if places[m] >= 0:
            copy_row(d_answer[places[m]], d_read[m])
        else:
            d_read[m][:] = 0
        if writes:
            add_row(V.dtype.type(-1), d_target[aim], d_read[m])
        for j in range(J):
            i = rows[m, j]
            if not alone[m, j]:
                dw[m, j] = inner(d_read[m], V[i])
                continue
            dw[m, j] = inner(d_read[m], before[j])
            if earlier[m, j]:
                copy_row(before[j], V[i])
            if has_G or later[m, j]:
                if has_G or wants_G or earlier[m, j]:
                    add_row(w[m, j], d_read[m], G[i])
            elif wants_G or earlier[m, j]:
                scale_row(w[m, j], d_read[m], G[i])


@jit
@no_type_check
def bring_shared(table, V, G, rows, later, has_G, order, start, num_shared):
    """Put the shared rows of a chunk that no later chunk touched into V, and zeros into G."""
    J = rows.shape[1]
    for g in range(num_shared):
        p = order[start[g]]
        i = rows[p // J, p % J]
        if not later[p // J, p % J]:
            copy_row(table[i], V[i])
            if not has_G:
                G[i][:] = 0


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
def look_around(rows, chunk, first_chunk, last_chunk, later, earlier):
    """Tell which pairs of a chunk address rows that later and earlier chunks touch."""
    for m in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            later[m, j] = last_chunk[rows[m, j]] > chunk
            earlier[m, j] = first_chunk[rows[m, j]] < chunk


@jit
@no_type_check
def note_chunks(rows, reads, first_chunk, last_chunk):
    """Note the first and the last chunk that touches each row."""
    r = 0
    for c in range(reads.shape[0]):
        for m in range(r, r + reads[c]):
            for j in range(rows.shape[1]):
                i = rows[m, j]
                first_chunk[i] = min(first_chunk[i], c)
                last_chunk[i] = c
        r += reads[c]


@jit
@no_type_check
def note_seen(rows, alone, seen, fresh):
    """Tell which pairs are alone on a row that no chunk touched before, and note the chunk's rows as seen."""
    for m in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            fresh[m, j] = alone[m, j] and not seen[rows[m, j]]
    for m in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            seen[rows[m, j]] = True


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
