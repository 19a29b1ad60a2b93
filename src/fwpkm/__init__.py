"""Fast-weight Product Key Memory for PyTorch (Zhao & Jones, arXiv:2601.00671v2)."""

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.pkm import PKMConfig, ProductKeyMemory
from fwpkm.memory.state import FwPKMState

__all__ = ["FwPKM", "FwPKMConfig", "FwPKMState", "PKMConfig", "ProductKeyMemory"]
__version__ = "0.1.0.dev0"
