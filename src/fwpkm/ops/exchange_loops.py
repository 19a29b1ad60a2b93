"""The compiled loop that puts new rows in the place of old ones."""

from typing import no_type_check

from fwpkm.ops.jit import jit
from fwpkm.ops.rows import copy_row, keep_row


@jit
@no_type_check
def exchange(first, last, part, rows, place, new, which, used, count, before):
    """Do it for some of the places; count[i] is how many places held something, up to and with this one."""
    for i in range(first, last):
        row = rows[place[i]]
        if place[i] < used:
            copy_row(row, before[count[i] - 1])
        keep_row(new[which[i]], row)
