"""The compiled loop that puts rows in their places."""

from typing import no_type_check

from fwpkm.ops.jit import jit
from fwpkm.ops.rows import keep_row


@jit
@no_type_check
def put(first, last, part, rows, place, new, which):
    """Do it for places [first, last)."""
    for i in range(first, last):
        keep_row(new[which[i]], rows[place[i]], rows.shape[1])
