"""Read and write weights of a scan's pairs, in one compiled pass each way."""

from fwpkm.ops.weigh.operation import can_weigh, weigh

__all__ = ["can_weigh", "weigh"]
