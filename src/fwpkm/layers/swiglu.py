"""The feed-forward part of a block: SwiGLU (arXiv:2002.05202)."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiGLUConfig:
    """What defines the feed-forward part besides the model's width."""

    hidden_dim: int = 2304
    """Width between the projections."""
    bias: bool = False
    """Whether the three projections add a bias."""

    def __post_init__(self) -> None:
        if self.hidden_dim < 1:
            raise ValueError(f"SwiGLUConfig: hidden_dim must be at least 1, got hidden_dim={self.hidden_dim}")


class SwiGLU(nn.Module):
    """Compute down(silu(gate(x)) * up(x)) for each token by itself.

    Args:
        dim: The model's width.
        config: The layer's own sizes.
    """

    def __init__(self, dim: int, config: SwiGLUConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, config.hidden_dim, bias=config.bias)
        self.up_proj = nn.Linear(dim, config.hidden_dim, bias=config.bias)
        self.down_proj = nn.Linear(config.hidden_dim, dim, bias=config.bias)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Transform every token of `x`."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
