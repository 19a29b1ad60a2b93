"""Gated DeltaNet: a linear-time token mixer whose state is one small matrix a head."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fwpkm.layers.checks import below_one, not_divided, not_positive, refuse
from fwpkm.layers.conv import ShortConv, ShortConvConfig, ShortConvState
from fwpkm.layers.inputs import check_hidden, check_state
from fwpkm.layers.norm import GatedRMSNorm, at_least_float32
from fwpkm.layers.padding import hide_padding
from fwpkm.ops.delta_rule import Arithmetic, Backend, gated_delta_rule
from fwpkm.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDeltaNetConfig:
    """What defines the layer besides the model's width."""

    num_key_heads: int = 6
    """Heads of queries and keys."""
    num_value_heads: int = 6
    """Heads of values, each with a state matrix; a multiple of num_key_heads, which share their keys."""
    key_head_dim: int = 64
    """Dk: rows of a state matrix."""
    value_head_dim: int = 128
    """Dv: columns of a state matrix."""
    conv_kernel_size: int = 4
    """Tokens that the convolution over queries, keys and values sees."""
    norm_eps: float = 1e-6
    """Added to the mean square in the output's normalisation."""
    backend: Backend | Literal["auto"] = "auto"
    """Which implementation of the delta rule runs; see `fwpkm.ops.delta_rule`."""
    arithmetic: Arithmetic = "accurate"
    """How the "torch" backend computes: with the least error, or with the very rounding errors of the authors'
    release, which show in the gradients of A_log and dt_bias only."""

    def __post_init__(self) -> None:
        sizes = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_size")
        problems = below_one(self, *sizes) + not_positive(self, "norm_eps")
        if self.backend not in ("auto", "naive", "torch", "fla"):
            problems.append(f"backend must be auto, naive, torch or fla, got backend={self.backend!r}")
        if self.arithmetic not in ("accurate", "release"):
            problems.append(f"arithmetic must be accurate or release, got arithmetic={self.arithmetic!r}")
        refuse("GatedDeltaNetConfig", problems + not_divided(self, "num_value_heads", "num_key_heads"))

    @property
    def key_dim(self) -> int:
        """Width of all heads' queries, and of all heads' keys."""
        return self.num_key_heads * self.key_head_dim

    @property
    def value_dim(self) -> int:
        """Width of all heads' values."""
        return self.num_value_heads * self.value_head_dim


@dataclass(frozen=True, kw_only=True, eq=False)
class GatedDeltaNetState(State):
    """What B streams carry from token to token; its size does not depend on how many there were."""

    conv: ShortConvState
    """The tokens that the convolution still sees."""
    memory: Float[Tensor, "B H Dk Dv"]
    """One matrix a head, float32 or wider."""

    @property
    def tokens_seen(self) -> Int[Tensor, " B"]:
        """Real tokens of each stream so far."""
        return self.conv.tokens_seen

    def select(self, streams: Int[Tensor, " b"]) -> "GatedDeltaNetState":
        """Return the states of `streams`, repeated or reordered as asked."""
        return replace(self, conv=self.conv.select(streams), memory=self.memory[streams])


class ReleaseConv(ShortConv):
    """Convolve with the same rounding errors, and in the same memory order, as the authors' release."""

    def _convolve(self, full: Float[Tensor, "B S D"]) -> Float[Tensor, "B T D"]:
        full, weight = at_least_float32(full), at_least_float32(self.weight)
        reach = weight.shape[-1] - 1
        # The padding is cut off again, but a narrower row would round silu otherwise at its end.
        y = F.conv1d(full.transpose(1, 2), weight, self.bias, padding=reach, groups=weight.shape[0])
        return y[..., reach : full.shape[1]].transpose(1, 2)


class GatedDeltaNet(nn.Module):
    """Mix tokens by the gated delta rule (arXiv:2412.06464v3), in the block form of Qwen3-Next.

    Weights are laid out by key head: each holds its query, its key, its values and their gates.

    Args:
        dim: The model's width.
        config: The layer's own sizes.
    """

    def __init__(self, dim: int, config: GatedDeltaNetConfig) -> None:
        super().__init__()
        self.config = config
        heads = config.num_value_heads
        self.in_proj_qkvz = nn.Linear(dim, 2 * config.key_dim + 2 * config.value_dim, bias=False)
        self.in_proj_ba = nn.Linear(dim, 2 * heads, bias=False)
        conv = ShortConvConfig(kernel_size=config.conv_kernel_size)
        make_conv = ReleaseConv if config.arithmetic == "release" else ShortConv
        self.conv1d = make_conv(2 * config.key_dim + config.value_dim, conv)
        self.A_log = nn.Parameter(torch.empty(heads))
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.norm = GatedRMSNorm(config.value_head_dim, eps=config.norm_eps)
        self.out_proj = nn.Linear(config.value_dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw exp(A_log), the decay's strength, from 0 to 16 and set dt_bias to one."""
        # The logarithm of an exact zero would stay minus infinity for ever.
        self.A_log.data.uniform_(0, 16).clamp_min_(1e-4).log_()
        nn.init.ones_(self.dt_bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: GatedDeltaNetState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], GatedDeltaNetState]:
        """Mix the tokens of `x`; `mask` is False at padding, which changes nothing and gives zeros.

        Raises:
            ValueError: If widths or mask do not fit.
            TypeError: If `state` is another layer's.
        """
        check_hidden("GatedDeltaNet", x, self.in_proj_ba.in_features, mask)
        if state is not None:
            check_state("GatedDeltaNet", state, GatedDeltaNetState)
        x = hide_padding(x, mask)
        mixed, z = self._split_heads(x)
        g, beta = self._decay_and_strength(x)
        mixed, conv = self.conv1d(mixed, None if state is None else state.conv, mask)
        q, keys, v = self._queries_keys_values(F.silu(mixed))
        out, memory = gated_delta_rule(
            q,
            keys,
            v,
            g,
            beta,
            state=None if state is None else state.memory,
            mask=mask,
            backend=self.config.backend,
            arithmetic=self.config.arithmetic,
        )
        # Zeros at padding stay zeros, because z is zero there and no projection adds a bias.
        y = self.out_proj(self.norm(out, z).flatten(-2))
        return y, GatedDeltaNetState(conv=conv, memory=memory)

    def _split_heads(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T qkv"], Float[Tensor, "B T H Dv"]]:
        """Project to queries, keys and values side by side, and to the output's gate z."""
        c = self.config
        shared = c.value_dim // c.num_key_heads
        parts = self.in_proj_qkvz(x).unflatten(-1, (c.num_key_heads, -1))
        q, keys, v, z = parts.split((c.key_head_dim, c.key_head_dim, shared, shared), dim=-1)
        mixed = torch.cat([part.flatten(-2) for part in (q, keys, v)], dim=-1)
        # A view where possible: in other memory order silu rounds otherwise.
        return mixed, z.reshape(*x.shape[:2], c.num_value_heads, c.value_head_dim)

    def _decay_and_strength(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B T H"]]:
        """Return g = -exp(A_log) softplus(a + dt_bias), in float32 or wider, and beta = sigmoid(b)."""
        parts = self.in_proj_ba(x).unflatten(-1, (self.config.num_key_heads, 2, -1))
        b, a = (part.flatten(-2) for part in parts.unbind(-2))
        g = -at_least_float32(self.A_log).exp() * F.softplus(at_least_float32(a) + self.dt_bias)
        return g, b.sigmoid()

    def _queries_keys_values(
        self, mixed: Float[Tensor, "B T qkv"]
    ) -> tuple[Float[Tensor, "B T H Dk"], Float[Tensor, "B T H Dk"], Float[Tensor, "B T H Dv"]]:
        c = self.config
        parts = mixed.split((c.key_dim, c.key_dim, c.value_dim), dim=-1)
        widths = (c.key_head_dim, c.key_head_dim, c.value_head_dim)
        q, keys, v = (part.unflatten(-1, (-1, w)) for part, w in zip(parts, widths, strict=True))
        if (r := c.num_value_heads // c.num_key_heads) > 1:
            q, keys = q.repeat_interleave(r, dim=2), keys.repeat_interleave(r, dim=2)
        return q, keys, v
