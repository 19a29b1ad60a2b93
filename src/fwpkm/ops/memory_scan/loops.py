"""The compiled loops of the memory scan: one chunk's tokens, then the rows that several of their pairs share.

A pair that is alone on its row may be read and written at once. What shares a row waits until all of the chunk's
tokens are done, and is added up first and rounded once. A row that only one chunk touches, as most are in a large
table, is fetched once and stored at most once on either way.
"""

from typing import no_type_check

import numpy as np

from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.pointers import address_of, copy_past_cache, finish_stores, pointer_at, pointer_to
from fwpkm.ops.rows import (
    add_four_rows,
    add_row,
    clear_row,
    combine_rows,
    copy_row,
    inner,
    inner_combined,
    scale_row,
    subtract_rows,
    zero_of,
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
    seen,
    v_hat,
    places,
    answer,
    streams,
):
    """Read for tokens [first, last) of a chunk, and write the rows that they alone address.

    Row r is V[place[r]], once a chunk has touched it; before, see `source_of`. A written token's target is
    target[aims[m]]; what token m reads goes to answer[places[m]] too, unless that is negative. With `streams`, fresh
    rows are written past the cache.
    """
    J, width = rows.shape[1], V.shape[1]
    error, moved = np.empty(width, dtype=V.dtype), np.empty(width, dtype=V.dtype)
    source, goal, fresh = find_rows(first, last, V, place, base, ids, rows, alone, seen)
    for m in range(first, last):
        at, read = (m - first) * J, pointer_to(v_hat, m * width)
        read_token(w[m], source[at : at + J], V, read, width)
        if places[m] >= 0:
            copy_row(read, pointer_to(answer, places[m] * width), width)
        writes = m < aims.shape[0]
        if writes:
            subtract_rows(pointer_to(target, aims[m] * width), read, error, width)
        for j in range(J):
            row = pointer_at(V, goal[at + j])
            if fresh[at + j]:
                if writes and streams:
                    combine_rows(pointer_at(V, source[at + j]), write_w[m, j], error, moved, width)
                    copy_past_cache(moved, row, width)
                elif writes:
                    combine_rows(pointer_at(V, source[at + j]), write_w[m, j], error, row, width)
                else:
                    copy_row(pointer_at(V, source[at + j]), row, width)
            elif alone[m, j] and writes:
                add_row(write_w[m, j], error, row, width)
    if streams:
        finish_stores()


@jit_inline
@no_type_check
def find_rows(first, last, V, place, base, ids, rows, alone, seen):
    """Return where each pair's row lies before the chunk, where it is to lie, and whether no chunk touched it before.

    Addresses, ahead of the loop that waits for memory: the less that one has to do, the further it gets ahead of what
    it waits for. Notes the rows as seen; those that pairs share are there by now.
    """
    J = rows.shape[1]
    source, goal = np.empty((last - first) * J, dtype=np.int64), np.empty((last - first) * J, dtype=np.int64)
    fresh = np.empty((last - first) * J, dtype=np.bool_)
    at = 0
    for m in range(first, last):
        for j in range(J):
            row = rows[m, j]
            goal[at] = address_of(V, place[row] * V.shape[1])
            fresh[at] = alone[m, j] and not seen[row]
            source[at] = goal[at]
            if fresh[at]:
                source[at] = source_of(row, V, base, ids)
                seen[row] = True
            at += 1
    return source, goal, fresh


@jit_inline
@no_type_check
def source_of(row, V, base, ids):
    """Return the address of what no chunk has touched: of base[i], or of V[-1 - i] where i = ids[row] < 0."""
    i, width = ids[row], V.shape[1]
    return address_of(base, i * width) if i >= 0 else address_of(V, (-1 - i) * width)


@jit_inline
@no_type_check
def read_token(w, source, V, out, width):
    """out = sum_j w_j row_j; four are on their way from memory at once."""
    for d in range(width):
        out[d] = 0
    j, J = 0, source.shape[0]
    while j + 4 <= J:
        x0, x1 = pointer_at(V, source[j]), pointer_at(V, source[j + 1])
        x2, x3 = pointer_at(V, source[j + 2]), pointer_at(V, source[j + 3])
        add_four_rows(w[j], x0, w[j + 1], x1, w[j + 2], x2, w[j + 3], x3, out, width)
        j += 4
    while j < J:
        add_row(w[j], pointer_at(V, source[j]), out, width)
        j += 1


@jit
@no_type_check
def fetch_rows(V, place, base, ids, wanted):
    """Bring the rows that are wanted to their place."""
    for i in range(wanted.shape[0]):
        if wanted[i]:
            copy_row(pointer_at(V, source_of(i, V, base, ids)), V[place[i]], V.shape[1])


@jit
@no_type_check
def fetch_shared(V, place, base, ids, rows, seen, order, start, num_shared):
    """Bring the shared rows of a chunk that no chunk touched before to their place, and note them as seen."""
    J = rows.shape[1]
    for g in range(num_shared):
        p = order[start[g]]
        row = rows[p // J, p % J]
        if not seen[row]:
            copy_row(pointer_at(V, source_of(row, V, base, ids)), V[place[row]], V.shape[1])
            seen[row] = True


@jit
@no_type_check
def write_shared(first, last, part, V, place, rows, sign, write_w, v_hat, target, aims, order, start):
    """row += sign sum a (target - v^)  over the pairs of shared rows [first, last)."""
    J, width = rows.shape[1], V.shape[1]
    total = np.empty(width, dtype=V.dtype)
    for g in range(first, last):
        total[:] = 0
        for p in order[start[g] : start[g + 1]]:
            m, j = p // J, p % J
            if m < aims.shape[0]:
                add_row(write_w[m, j], target[aims[m]], total, width)
                add_row(-write_w[m, j], v_hat[m], total, width)
        p = order[start[g]]
        add_row(sign, total, V[place[rows[p // J, p % J]]], width)


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
    chunk,
    first_chunk,
    last_chunk,
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
    J, width = rows.shape[1], V.shape[1]
    error, before = np.empty(width, dtype=V.dtype), np.empty(width, dtype=V.dtype)
    for m in range(first, last):
        writes = m < aims.shape[0]
        aim = aims[m] if writes else 0
        u, pull = pointer_to(d_target, aim * width), pointer_to(d_read, m * width)
        if places[m] >= 0:
            copy_row(pointer_to(d_answer, places[m] * width), pull, width)
        else:
            clear_row(pull, width)
        if writes:
            subtract_rows(pointer_to(v_hat, m * width), pointer_to(target, aim * width), error, width)
            clear_row(u, width)
            for j in range(J):
                i = rows[m, j]
                if has_G or last_chunk[i] > chunk or not alone[m, j]:
                    g = pointer_to(G, i * width)
                    d_write[m, j] = -inner(error, g, width)
                    add_row(write_w[m, j], g, u, width)
            add_row(V.dtype.type(-1), u, pull, width)
        else:
            clear_row(error, width)
        for j in range(J):
            i, at = rows[m, j], rows[m, j] * width
            if not alone[m, j]:
                dw[m, j] = inner(pull, pointer_to(V, at), width)
                continue
            later, earlier = last_chunk[i] > chunk, first_chunk[i] < chunk
            source, c = pointer_to(V if later else table, at), write_w[m, j] if writes else zero_of(V)
            if earlier:
                combine_rows(source, c, error, before, width)
                copy_row(before, pointer_to(V, at), width)
                dw[m, j] = inner(pull, before, width)
            else:
                dw[m, j] = inner_combined(pull, source, c, error, width)
            if has_G or later:
                if has_G or wants_G or earlier:
                    add_row(w[m, j], pull, pointer_to(G, at), width)
            elif wants_G or earlier:
                scale_row(w[m, j], pull, pointer_to(G, at), width)


@jit
@no_type_check
def bring_shared(table, V, G, rows, chunk, last_chunk, has_G, order, start, num_shared):
    """Put the shared rows of a chunk that no later chunk touched into V, and zeros into G."""
    J = rows.shape[1]
    for g in range(num_shared):
        p = order[start[g]]
        i = rows[p // J, p % J]
        if last_chunk[i] <= chunk:
            copy_row(table[i], V[i], V.shape[1])
            if not has_G:
                clear_row(G[i], V.shape[1])


@jit
@no_type_check
def add_shared(first, last, part, G, rows, w, d_read, order, start):
    """G[row] += sum w d v^  over the pairs of shared rows [first, last)."""
    J, width = rows.shape[1], G.shape[1]
    total = np.empty(width, dtype=G.dtype)
    for g in range(first, last):
        total[:] = 0
        for p in order[start[g] : start[g + 1]]:
            add_row(w[p // J, p % J], d_read[p // J], total, width)
        p = order[start[g]]
        add_row(G.dtype.type(1), total, G[rows[p // J, p % J]], width)


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
