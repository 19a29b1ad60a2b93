"""What LaCT's fast networks know after some tokens of B streams."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.memory.chunks import ChunkedState
from fwpkm.ops.fast_mlp import answer
from fwpkm.ops.lact import LaCTOptions, LaCTWeights, lact_step


@dataclass(frozen=True, kw_only=True, eq=False)
class LaCTMemory(ChunkedState[LaCTWeights]):
    """Fast networks of one layer; a value, never edited. The waiting tokens are packed by `pack_tokens`."""

    options: LaCTOptions
    """The arithmetic that made this state and continues it."""

    @property
    def chunking(self) -> LaCTOptions:
        """When the networks are written."""
        return self.options

    def read(self, fast: LaCTWeights, q: Float[Tensor, "K t Dq"]) -> Float[Tensor, "K t Dv"]:
        """Return the networks' answers, all heads side by side."""
        return answer(fast.mlp, _by_head(q, fast)).transpose(1, 2).flatten(-2)

    def write(self, fast: LaCTWeights, tokens: Float[Tensor, "K m W"], num_written: int) -> LaCTWeights:
        """Take one normalised step on a chunk's similarities."""
        S, H, _, d = fast.mlp.gate.shape
        tokens = tokens[:, :num_written]
        k, v, rates, weight = tokens.split(
            [H * d, H * d, 3 * H, tokens.shape[-1] - 2 * H * d - 3 * H], dim=-1
        )
        gate, up, down = _by_head(rates, fast).split(1, dim=-1)
        momentum = weight.mean(1).view(S, H, 1, 1) if self.options.momentum else None
        return lact_step(fast, _by_head(k, fast), _by_head(v, fast), (gate, up, down), momentum, self.options)


def pack_tokens(
    k: Float[Tensor, "B T D"],
    v: Float[Tensor, "B T D"],
    rates: Float[Tensor, "B T H 3"],
    momentum: Float[Tensor, "B T H"] | None,
) -> Float[Tensor, "B T W"]:
    """Join what the writes need."""
    parts = [k, v, rates.flatten(-2)]
    return torch.cat(parts if momentum is None else [*parts, momentum], dim=-1)


def _by_head(x: Tensor, fast: LaCTWeights) -> Tensor:
    """Bring [K, t, H * w] to [K, H, t, w]."""
    return x.unflatten(-1, (fast.mlp.gate.shape[1], -1)).transpose(1, 2)
