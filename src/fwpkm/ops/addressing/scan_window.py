"""One window of addressing after its matrix product, for `fwpkm.ops.threads.drive`."""

from typing import no_type_check

from fwpkm.ops.addressing.scan_loops import find_window, step_window
from fwpkm.ops.spans import cut_range
from fwpkm.ops.threads import side_by_side


@no_type_check
def find_and_step(
    near,
    q,
    start,
    written,
    num_slots,
    idw,
    g,
    i,
    place,
    best,
    cell,
    number,
    steps,
    eta,
    keys,
    squares,
    log_cell,
    log_row,
    log_end,
    threads,
    few_tokens,
    few_items,
):
    """Find the slots of window `number`, then let its first `steps` tokens move the sub-keys.

    few_tokens, few_items: How many tokens, and how many halves of a stream's sub-keys, are worth a thread.
    """
    S, _, H, M, _ = near.shape
    found = (near, squares, q, start, written, num_slots, idw, g, i, place, best, cell)
    failed = side_by_side(find_window, cut_range(S * H * M, threads, few_tokens), found)
    if steps > 0:
        moved = (number, g, i, q, start, steps, eta, idw, keys, squares, log_cell, log_row, log_end)
        failed |= side_by_side(step_window, cut_range(2 * S, threads, few_items), moved)
    else:
        log_end[:, number + 1] = log_end[:, number]
    return failed
