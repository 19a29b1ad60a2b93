"""A memory for language models that exist: FwPKM before chosen layers of a transformers decoder.

docs/retrofit.md shows its use.
"""

# ruff: noqa: E402  # an older transformers is refused before its names are missed
from fwpkm.models.transformers_version import require_transformers

require_transformers(__name__)

from fwpkm.models.attach.attach import attach, detach, freeze_base, memories, unfreeze_base
from fwpkm.models.attach.cache import memory_states, set_memory_states
from fwpkm.models.attach.families import FAMILIES, load_base
from fwpkm.models.attach.files import load_adapter, save_adapter
from fwpkm.models.attach.window import attention_window, free_attention, limit_attention, window_cache

__all__ = [
    "FAMILIES",
    "attach",
    "attention_window",
    "detach",
    "free_attention",
    "freeze_base",
    "limit_attention",
    "load_adapter",
    "load_base",
    "memories",
    "memory_states",
    "save_adapter",
    "set_memory_states",
    "unfreeze_base",
    "window_cache",
]
