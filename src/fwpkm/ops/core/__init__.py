"""The layer's core, without projections: addresses, reads and writes of whole sequences."""

from fwpkm.ops.core.options import CoreOptions

__all__ = ["CoreOptions"]
