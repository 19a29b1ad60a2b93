"""Ranges cut for several threads, as compiled functions may."""

from typing import no_type_check

import numpy as np

from fwpkm.ops.jit import jit


@jit
@no_type_check
def cut_range(num_items, threads, smallest):
    """Cut range(num_items) into spans of almost equal length, [P, 2], one a thread, of at least `smallest` items."""
    parts = max(1, min(threads, num_items // max(1, smallest)))
    spans = np.empty((parts, 2), dtype=np.int64)
    for i in range(parts):
        spans[i, 0] = num_items * i // parts
        spans[i, 1] = num_items * (i + 1) // parts
    return spans
