"""Finding the slots of a window's tokens, in compiled loops.

What is kept per window lies window behind window in flat arrays: [S, 2, H, M, k] each. A *plan* has, of each window,
its first token, tokens, written tokens, stepping tokens, first row, and first pair. The *strength* of a sub-key for a
query is what its softmax is proportional to, e to the power of its score: for "idw" 1 / (|q - K|^2 + eps), which is
also half of what the score's gradient is made of, so nothing but it is kept.
"""

from typing import no_type_check

from fwpkm.ops.addressing.search import find_best, new_found, new_room, num_blocks
from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.lanes import num_lanes


@jit_inline
@no_type_check
def row_of(a, m, S, M, written):
    """Number a window's token among all streams' tokens, of which the written ones come first."""
    return a * written + m if m < written else S * written + a * (M - written) + m - written


@jit_inline
@no_type_check
def find_block(a, h, block, own, q, keys, squares, num_slots, idw, g, i, place, best, cell, room, found):
    """Find the slots of a block of one stream's and head's tokens in the window whose row of the plan is `own`.

    Slots are numbered through all streams: stream * num_slots + slot. squares: |K|^2 [S * 2, H * n]. g: strengths.
    """
    (S, T, H, width), (_, cells, d), k, lanes = q.shape, keys.shape, best.shape[2], num_lanes(q)
    start, M, written, n, first = own[0], own[1], own[2], cells // H, block * lanes
    tokens, asked = min(lanes, M - first), ((a * T + start + first) * H + h) * width
    find_best(q, asked, H * width, d, tokens, keys, squares, (2 * a * H + h) * n, cells, idw, room, found)
    _, strengths, ids, sums, pair = found
    for t in range(tokens):
        row = own[4] + row_of(a, first + t, S, M, written)
        upper = own[5] + ((2 * a * H + h) * M + first + t) * k
        lower = upper + H * M * k
        for j in range(k):
            g[upper + j], i[upper + j] = strengths[0, j, t], ids[0, j, t]
            g[lower + j], i[lower + j] = strengths[1, j, t], ids[1, j, t]
            rank, other = pair[j, t] // k, pair[j, t] % k
            place[upper + j], place[lower + j] = rank, other
            best[row, h, j] = sums[j, t]
            cell[row, h, j] = a * num_slots + ids[0, rank, t] * n + ids[1, other, t]


@jit
@no_type_check
def find_span(first, last, part, own, q, keys, squares, num_slots, idw, g, i, place, best, cell):
    """Find the slots of blocks [first, last) of all streams' and heads' in one window."""
    (_, cells, d), H, k, blocks = keys.shape, q.shape[2], best.shape[2], num_blocks(own[1], q)
    room, found = new_room(q, cells // H, d, k), new_found(q, k)
    for number in range(first, last):
        a, h, block = number // (H * blocks), number // blocks % H, number % blocks
        find_block(a, h, block, own, q, keys, squares, num_slots, idw, g, i, place, best, cell, room, found)
