"""Rotary position embedding (arXiv:2104.09864): queries and keys turn with their position."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.layers.checks import below_one, not_positive, refuse

Scaling = Literal["none", "linear", "ntk", "yarn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """How positions turn into angles, and how far beyond the trained length they stretch."""

    base: float = 10_000.0
    """Ratio between the slowest and the fastest rotation, nearly."""
    fraction: float = 1.0
    """Leading share of a head's dimensions that turn; the others carry no position."""
    scaling: Scaling = "none"
    """"linear" divides positions (arXiv:2306.15595), "ntk" raises the base (NTK-aware, fixed factor),
    "yarn" divides only slow rotations and sharpens attention (arXiv:2309.00071)."""
    factor: float = 1.0
    """How many times longer than trained; at least 1, and 1 without scaling."""
    original_length: int | None = None
    """Trained length in tokens; for "yarn" only, which needs it."""
    beta_fast: float = 32.0
    """"yarn": rotations within the trained length from which a dimension is left as trained."""
    beta_slow: float = 1.0
    """"yarn": rotations within the trained length up to which a dimension is divided by `factor`."""

    def __post_init__(self) -> None:
        problems = not_positive(self, "base", "beta_fast", "beta_slow") + below_one(self, "original_length")
        if not 0 < self.fraction <= 1:
            problems.append(f"fraction must be in (0, 1], got fraction={self.fraction}")
        if self.scaling not in ("none", "linear", "ntk", "yarn"):
            problems.append(f"scaling must be none, linear, ntk or yarn, got scaling={self.scaling!r}")
        if self.factor < 1:
            problems.append(f"factor must be at least 1, got factor={self.factor}")
        if self.scaling == "none" and self.factor != 1:
            problems.append(f"factor must be 1 without scaling, got factor={self.factor}; set scaling")
        if (self.scaling == "yarn") != (self.original_length is not None):
            problems.append(
                "original_length must be set for scaling='yarn' and for nothing else, got "
                f"original_length={self.original_length} and scaling={self.scaling!r}"
            )
        if self.beta_fast <= self.beta_slow:
            problems.append(
                "beta_fast must be above beta_slow, got "
                f"beta_fast={self.beta_fast} and beta_slow={self.beta_slow}"
            )
        refuse("RopeConfig", problems)

    def rotary_dim(self, head_dim: int) -> int:
        """Dimensions of a head that turn."""
        return int(head_dim * self.fraction)


def rotary_angles(
    config: RopeConfig, head_dim: int, positions: Int[Tensor, "B T"]
) -> tuple[Float[Tensor, "B T half"], Float[Tensor, "B T half"]]:
    """Return cosine and sine, in float32, by which each pair of dimensions turns at `positions`.

    With "yarn" both are scaled by 0.1 ln(factor) + 1, which sharpens attention.
    """
    frequencies = rotary_frequencies(config, config.rotary_dim(head_dim), positions.device)
    angles = positions[..., None].float() * frequencies
    scale = 0.1 * math.log(config.factor) + 1.0 if config.scaling == "yarn" else 1.0
    return angles.cos() * scale, angles.sin() * scale


def rotate(
    x: Float[Tensor, "B T H D"], cos: Float[Tensor, "#B T half"], sin: Float[Tensor, "#B T half"]
) -> Float[Tensor, "B T H D"]:
    """Turn dimension i together with dimension i + half, as Llama and Qwen do; leave the rest alone."""
    half = cos.shape[-1]
    cos, sin = cos[:, :, None].to(x.dtype), sin[:, :, None].to(x.dtype)
    a, b, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)


def rotary_frequencies(config: RopeConfig, dim: int, device: torch.device) -> Float[Tensor, " half"]:
    """Return radians per token for each pair of `dim` dimensions, fastest first, in float32."""
    base = config.base
    if config.scaling == "ntk":
        # The slowest pair then turns exactly `factor` times slower, the fastest as before.
        base *= config.factor ** (dim / (dim - 2))
    exponent = torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim
    frequencies = 1.0 / base**exponent
    if config.scaling == "linear":
        return frequencies / config.factor
    if config.scaling == "yarn":
        slow = _yarn_slow_share(config, dim, device)
        return frequencies * (1 - slow) + frequencies / config.factor * slow
    return frequencies


def _yarn_slow_share(config: RopeConfig, dim: int, device: torch.device) -> Float[Tensor, " half"]:
    """Ramp from 0 at `beta_fast` rotations to 1 at `beta_slow`, linear in the pair's index.

    The paper's text ramps over rotations; its code and every model trained with it ramp over
    indices rounded outwards, so that is what is done here.
    """
    length = config.original_length
    assert length is not None, "RopeConfig lets no yarn through without it"

    def pair_that_turns(rotations: float) -> float:
        return dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(config.base))

    low = max(math.floor(pair_that_turns(config.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(config.beta_slow)), dim - 1)
    pair = torch.arange(dim // 2, device=device, dtype=torch.float32)
    return ((pair - low) / max(high - low, 1e-3)).clamp(0, 1)
