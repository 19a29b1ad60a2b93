"""The memory scan: chunk by chunk, read the table for many tokens, then write the rows that were read."""

from fwpkm.ops.memory_scan.moving import can_move, memory_scan_moving_
from fwpkm.ops.memory_scan.operation import memory_scan, memory_scan_

__all__ = ["can_move", "memory_scan", "memory_scan_", "memory_scan_moving_"]
