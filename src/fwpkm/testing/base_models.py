"""Tiny random models of every transformers family that takes a memory, for tests."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fwpkm.models.attach import attach, memories

VOCAB = 40
TINY = {"num_subkeys": 8, "key_dim": 8, "value_dim": 8, "topk": 2, "chunk_size": 4}
"""A memory that is written several times while a few tokens are read."""
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
_SLIDING = {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "sliding_window": 8}
_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "gemma2": _SLIDING,
    "gemma3_text": _SLIDING,
    "mistral": {"sliding_window": 8},
}
_LACKS = {"gpt2": ("num_key_value_heads", "head_dim"), "gpt_neox": ("num_key_value_heads", "head_dim")}


def make_base(family: str = "llama", dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """Return a causal language model in evaluation mode, always the same."""
    sizes = {name: x for name, x in _SIZES.items() if name not in _LACKS.get(family, ())}
    config = AutoConfig.for_model(family, **{**sizes, **_CHANGES.get(family, {}), **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for p in model.parameters():  # as they come, tiny models hardly tell tokens apart
            if p.ndim == 2:
                p.mul_(8)
    return model.eval()


def awaken(model: Any) -> Any:
    """Give attached memories a say, as training would."""
    with torch.no_grad():
        for memory in memories(model).values():
            for p in memory.out_proj.parameters():
                p.normal_(std=0.5)
    return model


def make_attached(
    family: str = "llama",
    layers: tuple[int, ...] = (1, 2),
    dtype: torch.dtype = torch.float64,
    **changes: Any,
) -> Any:
    """Return a tiny model with memories that have a say."""
    return awaken(attach(make_base(family, dtype), layers, {**TINY, **changes}))
