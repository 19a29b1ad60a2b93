"""Fast-weight Product Key Memory for PyTorch (Zhao & Jones, arXiv:2601.00671v2)."""

import importlib
from typing import TYPE_CHECKING, Any

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.pkm import PKMConfig, ProductKeyMemory
from fwpkm.memory.state import FwPKMState

if TYPE_CHECKING:
    from fwpkm.models.attach import attach as attach
    from fwpkm.models.attach import detach as detach
    from fwpkm.models.attach import load_adapter as load_adapter
    from fwpkm.models.attach import save_adapter as save_adapter

__all__ = ["FwPKM", "FwPKMConfig", "FwPKMState", "PKMConfig", "ProductKeyMemory"]
__version__ = "0.1.0.dev0"

_ATTACH = ("attach", "detach", "load_adapter", "save_adapter")


def __getattr__(name: str) -> Any:
    """Import what needs transformers only when it is asked for."""
    if name in _ATTACH:
        return getattr(importlib.import_module("fwpkm.models.attach"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ATTACH})
