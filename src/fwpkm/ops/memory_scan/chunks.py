"""The memory scan's way through the chunks, forwards and back, for `fwpkm.ops.threads.drive`."""

from typing import no_type_check

import numpy as np

from fwpkm.ops.jit import jit
from fwpkm.ops.memory_scan.loops import (
    add_shared,
    bring_shared,
    fetch_rows,
    fetch_shared,
    find_shared,
    note_chunks,
    read_and_write,
    walk_back,
    write_shared,
)
from fwpkm.ops.spans import cut_range
from fwpkm.ops.threads import side_by_side


@no_type_check
def scan_chunks(
    V,
    place,
    fetches,
    base,
    ids,
    rows,
    w,
    write_w,
    target,
    aims,
    reads,
    writes,
    places,
    v_hat,
    answer,
    streams,
    threads,
    fewest,
):
    """Read and write chunk after chunk; rows that are not in their place yet are brought there where `fetches`.

    streams: Whether rows are written past the cache.
    threads, fewest: How many threads there are, and how many tokens are worth one.
    """
    J, most, one = rows.shape[1], reads.max() if reads.shape[0] else 0, V.dtype.type(1)
    count, alone = np.zeros(place.shape[0], dtype=np.int64), np.empty((most, J), dtype=np.bool_)
    order, start = np.empty(most * J, dtype=np.int64), np.empty(most * J + 1, dtype=np.int64)
    seen = np.ones(place.shape[0], dtype=np.bool_)
    if fetches:
        seen[:] = ids == -1 - place
    r, t, failed = 0, 0, 0
    for c in range(reads.shape[0]):
        own, own_v_hat, own_aims = rows[r : r + reads[c]], v_hat[r : r + reads[c]], aims[t : t + writes[c]]
        own_w, own_write_w = w[r : r + reads[c]], write_w[t : t + writes[c]]
        num_shared = find_shared(own, count, alone, order, start)
        if fetches:
            fetch_shared(V, place, base, ids, own, seen, order, start, num_shared)
        given = (V, place, base, ids, own, own_w, own_write_w, target, own_aims, alone, seen)
        to = (own_v_hat, places[r : r + reads[c]], answer, streams)
        failed |= side_by_side(read_and_write, cut_range(reads[c], threads, fewest), (*given, *to))
        if num_shared > 0:
            spans = cut_range(num_shared, threads, rows_worth(fewest * J, num_shared, start))
            what = (own, one, own_write_w, own_v_hat, target, own_aims, order, start)
            failed |= side_by_side(write_shared, spans, (V, place, *what))
        r, t = r + reads[c], t + writes[c]
    if fetches:
        fetch_rows(V, place, base, ids, ~seen)
    return failed


@no_type_check
def scan_chunks_back(
    table,
    V,
    G,
    rows,
    w,
    write_w,
    target,
    aims,
    reads,
    writes,
    places,
    v_hat,
    d_answer,
    has_G,
    wants_G,
    dw,
    d_write,
    d_target,
    threads,
    fewest,
):
    """Walk back from the final table; see `fwpkm.ops.memory_scan.numba.scan_back`."""
    R, J, most, minus = table.shape[0], rows.shape[1], reads.max() if reads.shape[0] else 0, V.dtype.type(-1)
    place, count = np.arange(R), np.zeros(R, dtype=np.int64)
    alone = np.empty((most, J), dtype=np.bool_)
    order, start = np.empty(most * J, dtype=np.int64), np.empty(most * J + 1, dtype=np.int64)
    first_chunk, last_chunk = np.full(R, reads.shape[0]), np.full(R, -1)
    d_read = np.empty((most, table.shape[1]), dtype=table.dtype)
    note_chunks(rows, reads, first_chunk, last_chunk)
    r, t, failed = rows.shape[0], write_w.shape[0], 0
    for back in range(reads.shape[0]):
        c = reads.shape[0] - 1 - back
        r, t = r - reads[c], t - writes[c]
        own, own_w, own_dw = rows[r : r + reads[c]], w[r : r + reads[c]], dw[r : r + reads[c]]
        own_write_w, own_d_write = write_w[t : t + writes[c]], d_write[t : t + writes[c]]
        own_v_hat, own_aims = v_hat[r : r + reads[c]], aims[t : t + writes[c]]
        num_shared = find_shared(own, count, alone, order, start)
        bring_shared(table, V, G, own, c, last_chunk, has_G, order, start, num_shared)
        spans = cut_range(num_shared, threads, rows_worth(fewest * J, num_shared, start))
        if num_shared > 0:
            what = (own, minus, own_write_w, own_v_hat, target, own_aims, order, start)
            failed |= side_by_side(write_shared, spans, (V, place, *what))
        given = (table, V, G, own, own_w, own_write_w, own_v_hat, target, own_aims, d_answer)
        where = (places[r : r + reads[c]], alone, c, first_chunk, last_chunk, has_G, wants_G)
        to = (own_dw, own_d_write, d_target, d_read)
        failed |= side_by_side(walk_back, cut_range(reads[c], threads, fewest), (*given, *where, *to))
        if num_shared > 0:
            failed |= side_by_side(add_shared, spans, (G, own, own_w, d_read, order, start))
    return failed


@jit
@no_type_check
def rows_worth(pairs, num_shared, start):
    """Return how many shared rows are worth a thread: each has two pairs, or as many as there are tokens."""
    return -(-pairs * num_shared // max(1, start[num_shared]))
