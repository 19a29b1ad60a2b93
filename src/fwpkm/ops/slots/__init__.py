"""Bookkeeping of addressed slots: number the distinct ones, mark those read, and count how often each is."""

from fwpkm.ops.slots.torch import mark_rows, number_cells, read_counts, window_counts

__all__ = ["mark_rows", "number_cells", "read_counts", "window_counts"]
