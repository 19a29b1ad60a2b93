"""Rotary position embedding (arXiv:2104.09864): queries and keys turn with their position."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.layers.checks import below_one, not_positive, refuse
from fwpkm.ops.kept import kept

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


Angles = tuple[Float[Tensor, "#B T turning"], Float[Tensor, "#B T turning"]]


def rotary_angles(config: RopeConfig, head_dim: int, positions: Int[Tensor, "#B T"]) -> Angles:
    """Return, in float32, what turns each dimension at `positions`, and what its partner adds to it.

    These are the cosine, and the sine with the sign that it has for that dimension, of one angle for each pair. With
    "yarn" both are scaled by 0.1 ln(factor) + 1, which sharpens attention.
    """
    angles = positions[..., None].float() * _signed_frequencies(
        config, config.rotary_dim(head_dim), positions.device
    )
    cos, sin = angles.cos(), angles.sin()
    if config.scaling == "yarn":
        scale = 0.1 * math.log(config.factor) + 1.0
        cos, sin = cos * scale, sin * scale
    return cos, sin


@kept
def angles_between(config: RopeConfig, head_dim: int, first: int, last: int, device: torch.device) -> Angles:
    """Return the same for positions `first` to `last` - 1 of any stream: made once for all layers of a kind."""
    return rotary_angles(config, head_dim, torch.arange(first, last, device=device)[None])


def rotate(
    x: Float[Tensor, "B T H D"], cos: Float[Tensor, "#B T turning"], sin: Float[Tensor, "#B T turning"]
) -> Float[Tensor, "B T H D"]:
    """Turn dimension i together with dimension i + half, as Llama and Qwen do; leave the rest alone."""
    turning = cos.shape[-1]
    cos, sin = cos[:, :, None].to(x.dtype), sin[:, :, None].to(x.dtype)
    own = x if turning == x.shape[-1] else x[..., :turning]
    turned = torch.addcmul(own * cos, own.roll(turning // 2, dims=-1), sin)
    return turned if own is x else torch.cat((turned, x[..., turning:]), dim=-1)


@kept
def _signed_frequencies(config: RopeConfig, dim: int, device: torch.device) -> Float[Tensor, " turning"]:
    """Return how fast every dimension turns, and which way: a pair's first one gets the sine with a minus."""
    frequencies = rotary_frequencies(config, dim, device)
    return torch.cat((-frequencies, frequencies))


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
