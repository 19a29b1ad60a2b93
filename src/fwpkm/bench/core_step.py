"""One training step of the layer's core, the unit of the measurements."""

import torch
from torch import Tensor

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig

PAPER = FwPKMConfig(dim=768)
"""The paper's layer: 512 x 512 slots of 512, one head, top 8, chunks of 512 (arXiv:2601.00671v2, Sec. 4)."""

Inputs = tuple[Tensor, ...]


def core_inputs(config: FwPKMConfig, B: int, T: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """Draw queries, values and gates, all of which want gradients."""
    q = torch.randn(B, T, config.num_heads, config.key_dim, dtype=dtype)
    v, gate = torch.randn(B, T, config.value_dim, dtype=dtype), torch.rand(B, T, dtype=dtype)
    return tuple(x.requires_grad_() for x in (q, v, gate))


def spread_and_hot_inputs(
    config: FwPKMConfig, B: int, T: int, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> dict[str, Inputs]:
    """Draw inputs whose tokens read all over the table ("spread"), and such that all read the same slots ("hot")."""
    spread = tuple(x.detach().to(device) for x in core_inputs(config, B, T, dtype))
    hot = tuple(x[:, :1].expand_as(x).clone() for x in spread)
    return {
        "spread": tuple(x.requires_grad_() for x in spread),
        "hot": tuple(x.requires_grad_() for x in hot),
    }


def train_step(layer: FwPKM, inputs: Inputs, *, by_definition: bool = False) -> None:
    """Run forward and backward over one fresh stream, the values doubling as the gradient that comes in."""
    q, v, gate = inputs
    out, _ = layer.initial_state(q.shape[0]).advance(q, v, gate, by_definition=by_definition)
    torch.autograd.grad(out, inputs, v.detach())
