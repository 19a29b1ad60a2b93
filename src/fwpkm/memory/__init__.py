"""The memory as an object: what a stream has written, kept as a value."""

from fwpkm.memory.state import FwPKMState

__all__ = ["FwPKMState"]
