"""All windows of addressing, in turn: each stream's by a thread of its own, or each window by all threads."""

from typing import no_type_check

from fwpkm.ops.addressing.scan_find import find_block, find_span
from fwpkm.ops.addressing.scan_step import new_step_room, step_item, step_span
from fwpkm.ops.addressing.search import new_found, new_room, num_blocks
from fwpkm.ops.jit import jit
from fwpkm.ops.spans import cut_range
from fwpkm.ops.threads import side_by_side


@jit
@no_type_check
def address_streams(first, last, part, plan, q, keys, squares, num_slots, eta, idw, kept, slots, log):
    """Find every window's slots for streams [first, last), and let its first tokens move the sub-keys.

    kept: Strengths, ids and places. slots: Scores and slots of pairs. log: Cells, their old contents, and where each
    window's end.
    """
    (g, i, place), (best, cell), (log_cell, log_row, log_end) = kept, slots, log
    (_, cells, d), H, k = keys.shape, q.shape[2], best.shape[2]
    room, found = new_room(q, cells // H, d, k), new_found(q, k)
    step_room = new_step_room(q, H, cells // H, plan[:, 3].max(), k, d)
    for a in range(first, last):
        for window in range(plan.shape[0]):
            own = plan[window]
            for number in range(H * num_blocks(own[1], q)):
                h, block = number % H, number // H
                find_block(
                    a, h, block, own, q, keys, squares, num_slots, idw, g, i, place, best, cell, room, found
                )
            for item in range(2 * a, 2 * a + 2):
                if own[3] > 0:
                    step_item(
                        item,
                        window,
                        own,
                        q,
                        keys,
                        squares,
                        eta,
                        idw,
                        g,
                        i,
                        log_cell,
                        log_row,
                        log_end,
                        step_room,
                    )
                else:
                    log_end[item, window + 1] = log_end[item, window]


@no_type_check
def address_in_turn(
    plan, q, keys, squares, num_slots, eta, idw, kept, slots, log, threads, few_tokens, few_numbers
):
    """Do the same for all streams, each window's tokens and sub-keys shared out; for `fwpkm.ops.threads.drive`.

    few_tokens, few_numbers: How many tokens, and numbers of a key step, are worth a thread.
    """
    (g, i, place), (best, cell), (log_cell, log_row, log_end) = kept, slots, log
    (S, _, H, width), k, failed = q.shape, best.shape[2], 0
    for window in range(plan.shape[0]):
        own = plan[window]
        blocks = cut_range(S * H * num_blocks(own[1], q), threads, num_blocks(few_tokens // H, q))
        found = (own, q, keys, squares, num_slots, idw, g, i, place, best, cell)
        failed |= side_by_side(find_span, blocks, found)
        if own[3] > 0:
            items = cut_range(2 * S, threads, few_numbers // (H * own[3] * k * width) + 1)
            moved = (window, own, q, keys, squares, eta, idw, g, i, log_cell, log_row, log_end, k)
            failed |= side_by_side(step_span, items, moved)
        else:
            log_end[:, window + 1] = log_end[:, window]
    return failed
