"""Gated attention, full or within a sliding window; its state is what it still sees."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fwpkm.layers.attend import attend
from fwpkm.layers.checks import below_one, not_divided, not_positive, refuse
from fwpkm.layers.inputs import check_hidden, check_state
from fwpkm.layers.kv import KVState, extend, keep_last, keep_last_real
from fwpkm.layers.norm import RMSNorm
from fwpkm.layers.padding import Packing, packing_of
from fwpkm.layers.rope import Angles, RopeConfig, angles_between, rotary_angles, rotate

_MOST_KEPT = 512
"""Tokens whose angles are kept for other layers and calls, 64 calls at most: 256 KB each at 64 dimensions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """What defines the layer besides the model's width."""

    num_heads: int = 12
    """Heads of queries."""
    num_kv_heads: int = 12
    """Heads of keys and values, which groups of query heads share; divides num_heads."""
    head_dim: int = 64
    """Width of a head."""
    window: int | None = None
    """Tokens that a token sees, itself included; None is all before it."""
    bias: bool = False
    """Whether the four projections add a bias."""
    norm_eps: float = 1e-6
    """Added to the mean square where queries and keys are normalised."""
    rope: RopeConfig = field(default_factory=RopeConfig)
    """How positions are told apart."""

    def __post_init__(self) -> None:
        problems = below_one(self, "num_heads", "num_kv_heads", "head_dim", "window")
        problems += not_positive(self, "norm_eps") + not_divided(self, "num_heads", "num_kv_heads")
        turning = self.rope.rotary_dim(self.head_dim)
        fewest = 4 if self.rope.scaling == "ntk" else 2
        if turning % 2 or turning < fewest:
            problems.append(
                f"head_dim * rope.fraction must be even and at least {fewest}, got {turning} from "
                f"head_dim={self.head_dim} and rope.fraction={self.rope.fraction}"
            )
        refuse("AttentionConfig", problems)


class Attention(nn.Module):
    """Attend with normalised, turned queries and keys, then gate every head's output by a sigmoid.

    The query projection is twice as wide: per head first the query, then the gate (as in Qwen3-Next).

    Args:
        dim: The model's width.
        config: The layer's own sizes.
    """

    def __init__(self, dim: int, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(dim, 2 * width, bias=config.bias)
        self.k_proj = nn.Linear(dim, kv_width, bias=config.bias)
        self.v_proj = nn.Linear(dim, kv_width, bias=config.bias)
        self.o_proj = nn.Linear(width, dim, bias=config.bias)
        self.q_norm = RMSNorm(config.head_dim, eps=config.norm_eps)
        self.k_norm = RMSNorm(config.head_dim, eps=config.norm_eps)

    def initial_state(self, x: Float[Tensor, "B T D"]) -> KVState:
        """Return the state before the first token of streams like `x`."""
        empty = x.new_zeros(x.shape[0], 0, self.config.num_kv_heads, self.config.head_dim)
        seen = x.new_zeros(x.shape[0], dtype=torch.int64)
        return KVState(keys=empty, v=empty, tokens_seen=seen, shortest=0, longest=0)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: KVState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        window: int | None = None,
    ) -> tuple[Float[Tensor, "B T D"], KVState]:
        """Mix the tokens of `x` with each other and with those that `state` still shows.

        Args:
            x: New tokens.
            state: What came before; None is nothing. Shows the same afterwards.
            mask: False at padding, which is skipped over and gives zeros; None is no padding.
            window: Narrows this one call's view to so many tokens. The state keeps what the
                config says, so the next call may look further back again.

        Returns:
            Outputs, and the state after the last token.

        Raises:
            ValueError: If widths or mask do not fit, or `window` is below 1 or wider than the config's.
            TypeError: If `state` is another layer's.
        """
        check_hidden("Attention", x, self.q_proj.in_features, mask)
        window = self._narrowest(window)
        state = self.initial_state(x) if state is None else state
        check_state("Attention", state, KVState)
        if x.shape[1] == 0:
            return x, state
        packing = packing_of(mask)
        x = x if packing is None else packing.pack(x)
        q, gate, keys, v = self._project(x, angles_after(state, x.shape[1], self.config.rope))
        out, state = attend_and_keep(
            state, q, keys, v, packing=packing, window=window, kept=self.config.window
        )
        y = self.o_proj(out.flatten(-2) * gate.sigmoid())
        return (y if packing is None else packing.unpack(y)), state

    def _narrowest(self, window: int | None) -> int | None:
        own = self.config.window
        if window is None:
            return own
        if window < 1 or (own is not None and window > own):
            upper = (
                "" if own is None else f" and at most the layer's own {own}, beyond which it keeps no keys"
            )
            raise ValueError(f"Attention: window must be at least 1{upper}, got window={window}")
        return window

    def _project(
        self, x: Float[Tensor, "B T D"], angles: Angles
    ) -> tuple[
        Float[Tensor, "B T H Dh"],
        Float[Tensor, "B T HDh"],
        Float[Tensor, "B T G Dh"],
        Float[Tensor, "B T G Dh"],
    ]:
        """Return queries, the output's gate, keys and values, normalised and turned."""
        Dh = self.config.head_dim
        q, gate = self.q_proj(x).unflatten(-1, (-1, 2 * Dh)).chunk(2, dim=-1)
        keys, v = (proj(x).unflatten(-1, (-1, Dh)) for proj in (self.k_proj, self.v_proj))
        q, keys = rotate(self.q_norm(q), *angles), rotate(self.k_norm(keys), *angles)
        return q, gate.flatten(-2), keys, v


def attend_and_keep(
    state: KVState,
    q: Float[Tensor, "B T H Dh"],
    keys: Float[Tensor, "B T G Dh"],
    v: Float[Tensor, "B T G Dh"],
    *,
    packing: Packing | None,
    window: int | None,
    kept: int | None,
) -> tuple[Float[Tensor, "B T H Dh"], KVState]:
    """Let T new tokens attend to themselves and to what `state` shows.

    Args:
        state: What came before; shows the same afterwards.
        q: Queries of the new tokens, turned to their positions.
        keys: Keys of the new tokens, likewise.
        v: Values of the new tokens.
        packing: How the tokens were reordered where some are padding.
        window: Tokens that a token sees now, itself included; None is all.
        kept: Tokens that later calls may see, likewise.

    Returns:
        What the tokens see, and the state after them.
    """
    flows = torch.is_grad_enabled() and any(p.requires_grad for p in (q, keys, v, state.keys, state.v))
    keys, v, room = extend(state, keys, v, in_place=packing is None and not flows)
    out = attend(q, keys, v, window=window, missing=state.missing)
    limit = None if kept is None else kept - 1
    if packing is None:
        return out, keep_last(state, keys, v, room, limit)
    return out, keep_last_real(state, keys, v, packing, limit)


def angles_after(state: KVState, T: int, config: RopeConfig) -> Angles:
    """Return what turns each stream's new tokens, counting real tokens only; one row if all streams agree."""
    device, head_dim = state.keys.device, state.keys.shape[-1]
    if torch.compiler.is_compiling() or state.shortest != state.longest:  # a graph holds no position
        positions = state.tokens_seen[:, None] + torch.arange(T, device=device)
    elif T <= _MOST_KEPT:
        return angles_between(config, head_dim, state.shortest, state.shortest + T, device)
    else:
        positions = torch.arange(state.shortest, state.shortest + T, device=device)[None]
    return rotary_angles(config, head_dim, positions)
