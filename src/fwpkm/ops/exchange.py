"""New rows put in the place of old ones, which are handed out: one pass where loops are compiled."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.backend import runs_compiled
from fwpkm.ops.blocks import large_empty

_FEWEST_ROWS = 256
"""Rows that are worth a thread."""


def exchange_rows(
    rows: Float[Tensor, "R Dv"],
    place: Int[Tensor, " P"],
    new: Float[Tensor, "N Dv"],
    which: Int[Tensor, " P"],
    used: int,
    gone: Int[Tensor, " O"] | None = None,
) -> tuple[Int[Tensor, " O"], Float[Tensor, "O Dv"]]:
    """Put new[which[i]] into rows[place[i]], which may round it.

    Args:
        rows: Edited in place.
        place: Distinct rows.
        new: What comes, in the precision that it was computed in.
        which: Row of `new` for each place.
        used: Places from here on hold nothing yet.
        gone: The places before, in their order, where they are known already: finding them waits for the device.

    Returns:
        The places that held something, and what they held.
    """
    old = place < used
    gone = place[old] if gone is None else gone
    before = large_empty((gone.shape[0], rows.shape[1]), rows)
    if runs_compiled(new) and rows.is_contiguous():
        from fwpkm.ops.exchange_loops import exchange
        from fwpkm.ops.threads import run_spans, split_range

        spans = split_range(place.shape[0], smallest=_FEWEST_ROWS)
        run_spans(exchange, spans, rows, place, new, which, used, old.cumsum(0), before)
    else:
        torch.index_select(rows, 0, gone, out=before)
        rows.index_copy_(0, place, new.index_select(0, which).to(rows.dtype))
    return gone, before
