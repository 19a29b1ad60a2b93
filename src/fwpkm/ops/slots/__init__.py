"""Bookkeeping of addressed slots: number the distinct ones, and count how often each is read."""

from fwpkm.ops.slots.torch import number_cells, read_counts, window_counts

__all__ = ["number_cells", "read_counts", "window_counts"]
