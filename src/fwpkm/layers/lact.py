"""LaCT: attention within a window beside fast networks that learn a large chunk at a time."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fwpkm.layers.attention import angles_after, attend_and_keep
from fwpkm.layers.checks import refuse
from fwpkm.layers.inputs import check_hidden, check_state
from fwpkm.layers.kv import KVState
from fwpkm.layers.lact_config import LaCTConfig
from fwpkm.layers.low_rank import HeadMatrices
from fwpkm.layers.norm import PlainRMSNorm, at_least_float32
from fwpkm.layers.padding import Packing, packing_of
from fwpkm.layers.rope import Angles, rotate
from fwpkm.memory.lact import LaCTMemory, pack_tokens
from fwpkm.memory.waiting import Waiting
from fwpkm.ops.compiling import uncompiled
from fwpkm.ops.fast_mlp import FastMLP
from fwpkm.ops.lact import LaCTWeights
from fwpkm.ops.lact.torch import NORM_EPS
from fwpkm.state import State


@dataclass(frozen=True, kw_only=True, eq=False)
class LaCTState(State):
    """What B streams carry from call to call; a value, never edited."""

    attention: KVState
    """The keys and values that are still in the window."""
    memory: LaCTMemory
    """The fast networks, and the tokens that they will learn when their chunk is full."""

    @property
    def tokens_seen(self) -> Int[Tensor, " B"]:
        """Real tokens of each stream so far."""
        return self.attention.tokens_seen

    def flush(self) -> "LaCTState":
        """Let the networks learn the waiting tokens, without waiting for their chunk to fill."""
        return LaCTState(attention=self.attention, memory=self.memory.flush())

    def detach(self) -> "LaCTState":
        """Cut the graph, keeping the numbers: truncated backpropagation at this point."""
        return LaCTState(attention=self.attention.detach(), memory=self.memory.detach())

    def to(self, device: torch.device | str) -> "LaCTState":
        """Return the same state on `device`; the original stays where it is."""
        return LaCTState(attention=self.attention.to(device), memory=self.memory.to(device))

    def select(self, streams: Int[Tensor, " b"]) -> "LaCTState":
        """Return the states of `streams`, repeated or reordered as asked."""
        return LaCTState(attention=self.attention.select(streams), memory=self.memory.select(streams))

    @property
    def num_bytes(self) -> int:
        """Bytes of the window, the networks and the waiting tokens."""
        return self.attention.num_bytes + self.memory.num_bytes


class LaCT(nn.Module):
    r"""Attend within a window, ask fast networks, and add the two  (arXiv:2505.23884v1, language modelling).

        q, k, v = W_qkv x ;  y = W_o (attend(q, k, v) + scale(x) * RMSNorm(f(q')))

    with q' and k' the queries and keys rescaled by channel, through a silu and at length 1. After every chunk
    f learns its k' -> v, at rates that each token chooses; a chunk is read with the networks of before. A
    token mixer; unlike the authors' code it carries the fast weights from call to call, whatever the cuts.

    >>> layer = LaCT(32, LaCTConfig(num_heads=4, head_dim=8, num_fast_heads=2, window=6, chunk_size=8))
    >>> x = torch.randn(2, 20, 32)
    >>> y, state = layer(x)
    >>> y, state = layer(x, state)

    Args:
        dim: The model's width.
        config: The layer's own sizes.
    """

    def __init__(self, dim: int, config: LaCTConfig) -> None:
        super().__init__()
        self.config = config
        width, H, d, hidden = (
            config.width,
            config.num_fast_heads,
            config.fast_head_dim,
            config.fast_hidden_dim,
        )
        self.qkv_proj = nn.Linear(dim, 3 * width, bias=config.bias)
        self.q_norm = PlainRMSNorm(width, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = PlainRMSNorm(width, eps=config.norm_eps) if config.qk_norm else None
        self.fast_scale = nn.Parameter(torch.empty(2, width))
        self.fast_offset = nn.Parameter(torch.empty(2, width))
        self.lr_proj = nn.Linear(dim, 3 * H)
        self.momentum_proj = nn.Linear(dim, H) if config.momentum else None
        self.scale_proj = nn.Linear(dim, H) if config.learned_scale else None
        self.initial_gate, self.initial_up = (
            HeadMatrices(H, hidden, d, rank=config.initial_rank, gain=config.initial_gain) for _ in range(2)
        )
        self.initial_down = nn.Parameter(torch.empty(H, d, hidden))
        self.fast_norm = PlainRMSNorm(d, eps=config.norm_eps)
        self.o_proj = nn.Linear(width, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the channels' scales at one, their offsets at zero, and draw the initial networks."""
        nn.init.ones_(self.fast_scale)
        nn.init.zeros_(self.fast_offset)
        nn.init.normal_(self.initial_down, std=self.config.fast_hidden_dim**-0.5)
        self.initial_gate.reset_parameters()
        self.initial_up.reset_parameters()

    def initial_state(self, x: Float[Tensor, "B T D"]) -> LaCTState:
        """Return the state before the first token of streams like `x`."""
        return LaCTState(attention=self._empty_window(x), memory=self._fresh_memory(x.shape[0]))

    def _empty_window(self, x: Tensor) -> KVState:
        empty = x.new_zeros(x.shape[0], 0, self.config.num_heads, self.config.head_dim)
        seen = x.new_zeros(x.shape[0], dtype=torch.int64)
        return KVState(keys=empty, v=empty, tokens_seen=seen, shortest=0, longest=0)

    def _fresh_memory(self, B: int) -> LaCTMemory:
        config = self.config
        gate, up = self.initial_gate(), self.initial_up()
        mlp = FastMLP(gate=gate, up=up, down=at_least_float32(self.initial_down))
        mlp = mlp.map(lambda p: p.expand(B, *p.shape))
        H, momentum = config.num_fast_heads, config.momentum
        line = mlp.gate.new_empty(0, 2 * config.width + (4 if momentum else 3) * H)
        return LaCTMemory(
            fast=LaCTWeights.fresh(mlp, momentum=momentum),
            waiting=Waiting.empty(B, line),
            tokens_seen=(0,) * B,
            options=config.core,
        )

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: LaCTState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], LaCTState]:
        """Mix the tokens of `x` with each other and with what `state` knows.

        Args:
            x: New tokens.
            state: What came before; None is nothing. Shows the same afterwards.
            mask: False at padding, which is skipped over and gives zeros; None is no padding.

        Returns:
            Outputs, and the state after the last token.

        Raises:
            ValueError: If widths, streams or mask do not fit.
            TypeError: If `state` is another layer's.
        """
        check_hidden("LaCT", x, self.qkv_proj.in_features, mask)
        if state is not None:
            self._check(state, x.shape[0])
        if x.shape[1] == 0:
            return x, self.initial_state(x) if state is None else state
        attention = self._empty_window(x) if state is None else state.attention
        packing = packing_of(mask)
        x = x if packing is None else packing.pack(x)
        q, k, v = self._project(x)
        angles = angles_after(attention, x.shape[1], self.config.rope)
        near, attention = self._attend(q, k, v, angles, attention, packing)
        with torch.autocast(x.device.type, enabled=False):
            far, memory = self._ask(x, q, k, v, angles, None if state is None else state.memory, packing)
        y = self.o_proj(near + self.scale(x, far).to(near.dtype))
        return (y if packing is None else packing.unpack(y)), LaCTState(attention=attention, memory=memory)

    @uncompiled
    def _check(self, state: LaCTState, num_streams: int) -> None:
        check_state("LaCT", state, LaCTState)
        problems = []
        if state.memory.num_streams != num_streams:
            problems.append(f"x has {num_streams} streams and the state {state.memory.num_streams}")
        if state.memory.options != self.config.core:
            problems.append(f"the layer has {self.config.core} and the state {state.memory.options}")
        ours, theirs = tuple(self.initial_down.shape), tuple(state.memory.fast.mlp.down.shape[1:])
        if ours != theirs:
            problems.append(f"fast networks end in {ours} in the layer and {theirs} in the state")
        if problems:
            problems[-1] += ". Pass state=None to start afresh."
        refuse("LaCT: the state must come from the same configuration", problems)

    def _project(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T W"], Float[Tensor, "B T W"], Float[Tensor, "B T W"]]:
        q, k, v = self.qkv_proj(x).chunk(3, dim=-1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        angles: Angles,
        state: KVState,
        packing: Packing | None,
    ) -> tuple[Float[Tensor, "B T W"], KVState]:
        q, k, v = (t.unflatten(-1, (-1, self.config.head_dim)) for t in (q, k, v))
        q, k = rotate(q, *angles), rotate(k, *angles)
        window = self.config.window
        out, state = attend_and_keep(state, q, k, v, packing=packing, window=window, kept=window)
        return out.flatten(-2), state

    def _ask(
        self,
        x: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        angles: Angles,
        state: LaCTMemory | None,
        packing: Packing | None,
    ) -> tuple[Float[Tensor, "B T W"], LaCTMemory]:
        """Read the fast networks, in float32 or wider, and teach them the chunks that are now full."""
        x, q, k, v = (at_least_float32(t) for t in (x, q, k, v))
        q, k = (self._fast_side(t, i, angles) for i, t in enumerate((q, k)))
        v = F.silu(v) if self.config.silu == "qkv" else v
        line = pack_tokens(k, v, self.rates(x), self.momentum(x))
        return self._advance(q, line, state, packing)

    @uncompiled
    def _advance(
        self, q: Tensor, line: Tensor, state: LaCTMemory | None, packing: Packing | None
    ) -> tuple[Float[Tensor, "B T W"], LaCTMemory]:
        B, T, _ = q.shape
        state = self._fresh_memory(B) if state is None else state
        return state.advance(q, line, [T] * B if packing is None else packing.lengths.tolist())

    def _fast_side(self, t: Tensor, side: int, angles: Angles) -> Float[Tensor, "B T W"]:
        """Turn the attention's queries (side 0) or keys (side 1) into those of the fast networks."""
        scale, offset = at_least_float32(self.fast_scale[side]), at_least_float32(self.fast_offset[side])
        t = torch.addcmul(offset, t, scale)
        t = (t if self.config.silu == "none" else F.silu(t)).unflatten(-1, (self.config.num_fast_heads, -1))
        t = (t / (t.norm(dim=-1, keepdim=True) + NORM_EPS)).flatten(-2)
        if not self.config.fast_rope:
            return t
        return rotate(t.unflatten(-1, (-1, self.config.head_dim)), *angles).flatten(-2)

    def rates(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H 3"]:
        """Return each token's step sizes of gate, up and down: a softplus that starts near `base_lr`."""
        raw = _linear(x, self.lr_proj).unflatten(-1, (-1, 3))
        base = self.config.base_lr + math.log(-math.expm1(-self.config.base_lr))
        return F.softplus(raw + base)

    def momentum(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"] | None:
        """Return each token's say in the factor of the last update; None without momentum."""
        return None if self.momentum_proj is None else _linear(x, self.momentum_proj).sigmoid()

    def scale(self, x: Float[Tensor, "B T D"], far: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """Normalise what each fast network gave, and weigh it."""
        far = self.fast_norm(far.unflatten(-1, (self.config.num_fast_heads, -1)))
        if self.scale_proj is not None:
            far = far * F.silu(self.scale_proj(x))[..., None]
        return far.flatten(-2)


def _linear(x: Tensor, proj: nn.Linear) -> Tensor:
    """Apply `proj` in the precision of `x`, whatever that of its weights."""
    return F.linear(x, proj.weight.to(x.dtype), proj.bias.to(x.dtype))
