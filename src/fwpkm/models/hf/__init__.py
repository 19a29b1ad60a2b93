"""The decoder at home in transformers: the Auto classes, `generate()` and `Trainer` work on it.

Importing this package registers the model type "fwpkm", after which `AutoConfig`, `AutoModel` and
`AutoModelForCausalLM` know it. docs/huggingface.md shows its use.
"""

# ruff: noqa: E402  # an older transformers is refused before its names are missed
from fwpkm.models.transformers_version import require_transformers

require_transformers(__name__)

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from fwpkm.models.hf.cache import FwPKMCache
from fwpkm.models.hf.config import FwPKMHFConfig
from fwpkm.models.hf.model import FwPKMForCausalLM, FwPKMModel

__all__ = ["FwPKMCache", "FwPKMForCausalLM", "FwPKMHFConfig", "FwPKMModel", "register"]


def register() -> None:
    """Make the Auto classes know the model type "fwpkm". Importing this package does it."""
    AutoConfig.register(FwPKMHFConfig.model_type, FwPKMHFConfig, exist_ok=True)
    AutoModel.register(FwPKMHFConfig, FwPKMModel, exist_ok=True)
    AutoModelForCausalLM.register(FwPKMHFConfig, FwPKMForCausalLM, exist_ok=True)


register()
