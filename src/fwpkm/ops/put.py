"""New rows put in their places: one pass where loops are compiled, whether it rounds them or not."""

from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.backend import runs_compiled

_FEWEST_ROWS = 256
"""Rows that are worth a thread."""


def put_rows(
    rows: Float[Tensor, "R Dv"],
    place: Int[Tensor, " P"],
    new: Float[Tensor, "N Dv"],
    which: Int[Tensor, " P"],
) -> None:
    """Put new[which[i]] into rows[place[i]], which may round it.

    Args:
        rows: Edited in place.
        place: Distinct rows.
        new: What comes, in the precision that it was computed in.
        which: Row of `new` for each place.
    """
    if runs_compiled(new) and rows.is_contiguous():
        from fwpkm.ops.put_loops import put
        from fwpkm.ops.threads import run_range

        run_range(put, place.shape[0], rows, place, new, which, smallest=_FEWEST_ROWS)
    else:
        rows.index_copy_(0, place, new.index_select(0, which).to(rows.dtype))
