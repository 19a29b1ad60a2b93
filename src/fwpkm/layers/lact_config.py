"""What defines a LaCT layer."""

from dataclasses import dataclass, field, fields
from typing import Literal

from fwpkm.layers.checks import below_one, not_divided, not_positive, refuse
from fwpkm.layers.rope import RopeConfig
from fwpkm.ops.lact import LaCTOptions
from fwpkm.ops.lact.options import UpdateKind

SiluKind = Literal["none", "qk", "qkv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaCTConfig:
    """What defines the layer besides the model's width; defaults as for the baseline of arXiv:2601.00671v2."""

    num_heads: int = 12
    """Heads of the attention."""
    head_dim: int = 64
    """Width of one of them."""
    window: int | None = 2048
    """Tokens that a token attends to, itself included; None is all before it."""
    num_fast_heads: int = 4
    """H: fast networks; they share the attention's queries, keys and values, cut anew."""
    fast_hidden_ratio: float = 1.0
    """Width of a fast network's hidden layer over the width of its head."""
    initial_rank: int | None = 32
    """Rank of what is learned of the networks' initial gate and up, besides half the identity; None learns
    them in full."""
    initial_gain: float = 0.5
    """Scale of the low-rank part when drawn."""

    chunk_size: int = 512
    """C: tokens that read the same fast weights before these are written."""
    update: UpdateKind = "gradient"
    """What is added to the weights: the chunk's gradient, or the nearest orthogonal matrix to it (Muon)."""
    momentum: bool = True
    """Add the last chunk's update, times a factor that the tokens choose, to this one's."""
    base_lr: float = 0.001
    """Step size where the learned rates start, about."""
    silu: SiluKind = "qk"
    """Which of the fast networks' queries, keys and values go through a silu."""
    fast_rope: bool = True
    """Turn the fast networks' queries and keys with their positions, as the attention's."""
    learned_scale: bool = True
    """Weigh each head's answer by a silu of a projection of the token."""

    bias: bool = False
    """Whether the projection to queries, keys and values adds a bias."""
    qk_norm: bool = False
    """Normalise queries and keys over all heads together."""
    norm_eps: float = 1e-5
    """Added to the mean square where something is normalised."""
    rope: RopeConfig = field(default_factory=RopeConfig)
    """How the attention tells positions apart."""

    def __post_init__(self) -> None:
        problems = below_one(self, "num_heads", "head_dim", "window", "num_fast_heads", "initial_rank")
        problems += not_positive(self, "fast_hidden_ratio", "initial_gain", "base_lr", "norm_eps")
        problems += not_divided(self, "width", "num_fast_heads")
        if self.num_fast_heads >= 1 and self.fast_hidden_ratio > 0 and self.fast_hidden_dim < 1:
            problems.append(
                f"fast_hidden_ratio is too small for a hidden layer, got {self.fast_hidden_ratio} with heads "
                f"of {self.fast_head_dim}"
            )
        if self.silu not in ("none", "qk", "qkv"):
            problems.append(f"silu must be none, qk or qkv, got silu={self.silu!r}")
        if (turning := self.rope.rotary_dim(self.head_dim)) % 2 or turning < 2:
            problems.append(
                f"head_dim * rope.fraction must be even and at least 2, got {turning} from "
                f"head_dim={self.head_dim} and rope.fraction={self.rope.fraction}"
            )
        try:
            self.core  # noqa: B018 - checks the fields that the arithmetic shares
        except ValueError as error:
            problems.append(str(error).removeprefix("LaCTOptions: "))
        refuse("LaCTConfig", problems)

    @property
    def width(self) -> int:
        """Width of all heads' queries, and of keys and values."""
        return self.num_heads * self.head_dim

    @property
    def fast_head_dim(self) -> int:
        """d: width of what a fast network takes and gives."""
        return self.width // self.num_fast_heads

    @property
    def fast_hidden_dim(self) -> int:
        """F: width of a fast network's hidden layer."""
        return int(self.fast_head_dim * self.fast_hidden_ratio)

    @property
    def core(self) -> LaCTOptions:
        """The part that defines the recurrence."""
        return LaCTOptions(**{f.name: getattr(self, f.name) for f in fields(LaCTOptions)})
