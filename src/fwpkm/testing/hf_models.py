"""Tiny transformers models of every system, for tests."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.models.hf import FwPKMForCausalLM, FwPKMHFConfig
from fwpkm.testing.systems import make_system


def make_hf_model(
    system: str = "sliding_fwpkm", dtype: torch.dtype = torch.float64, **changes: Any
) -> FwPKMForCausalLM:
    """Return a model in evaluation mode whose memories have the model's precision.

    It pads with 0 and never ends by itself.
    """
    if system == "delta_fwmlp":  # at make_system's 0.4 the inner steps of the fast network may diverge
        changes = {"initializer_range": 0.2, **changes}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = FwPKMForCausalLM(FwPKMHFConfig(make_system(system, **changes), pad_token_id=0))
    finally:
        torch.set_default_dtype(before)
    model.eval()
    return model


def make_tokens(B: int = 2, T: int = 13, vocab: int = 40) -> Int[Tensor, "B T"]:
    """Draw tokens that are no padding."""
    return torch.randint(2, vocab, (B, T))
