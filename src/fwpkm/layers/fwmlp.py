"""The paper's baseline: a memory that is one small fast-weight SwiGLU network."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fwpkm.layers.checks import below_one, not_positive, refuse
from fwpkm.layers.frame import MemoryFrame, VectorNorm
from fwpkm.layers.initial import add_initial, keeping_exact, set_initial
from fwpkm.layers.inputs import check_hidden, check_state
from fwpkm.layers.padding import hide_padding, packing_of
from fwpkm.memory.fast_mlp import FastMLPState, pack_tokens
from fwpkm.memory.waiting import Waiting
from fwpkm.ops.compiling import uncompiled
from fwpkm.ops.core.options import Border
from fwpkm.ops.fast_mlp import FastMLP, FastMLPOptions
from fwpkm.ops.fast_mlp.options import TargetKind

Scope = Literal["stream", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FastWeightMLPConfig:
    """What defines the layer. The defaults are those of the paper's baseline (arXiv:2601.00671v2)."""

    dim: int
    """D: width of the hidden states that come in and go out."""
    hidden_dim: int = 2304
    """F: width of the fast network's hidden layer."""
    key_dim: int = 512
    """Dk: width of the queries."""
    value_dim: int = 512
    """Dv: width of the values."""
    chunk_size: int = 512
    """C: tokens that read the same fast weights before these are written."""
    lookahead: int = 1
    """l: how far ahead of its token a target reaches."""
    target: TargetKind = "mean"
    """What token t learns: the mean of the values of tokens t to t + l, or the value of t + l."""
    lr: float = 0.1
    """Step size of the fast weights."""
    weight_decay: float = 0.0
    """Times the fast weights, added to their gradients."""
    clip_gradients: bool = False
    """Clamp each number of the fast weights' gradients to [-1, 1]."""
    border: Border = "moved"
    """Targets across a chunk's end: "moved" waits for them, "dropped" never writes their tokens (D2)."""

    query_norm: VectorNorm = "none"
    """Normalise each half of each query."""
    value_norm: VectorNorm = "zscore"
    """Normalise each value over Dv."""
    gate: bool = True
    """Mix what was retrieved with the token's own value by a learned gate; otherwise add the two."""
    gate_logits: int = 1
    """Logits whose mean is the gate's (paper: 1, release: 8; D4)."""

    scope: Scope = "stream"
    """One network per stream, or one shared by the batch (release; D3)."""
    initial_weights: Literal["random", "learned"] = "random"
    """What streams start from: fixed, or trained with the slow weights."""
    weight_seed: int = 0
    """Draws the initial fast weights."""

    norm_eps: float = 1e-5
    """Added to the mean square in every RMSNorm."""
    bias: bool = True
    """Whether the projections have a bias. The fast network always has."""
    check_inputs: bool = False
    """Refuse non-finite hidden states, at the cost of looking at them all."""

    def __post_init__(self) -> None:
        problems = below_one(self, "dim", "hidden_dim", "key_dim", "value_dim", "gate_logits")
        problems += not_positive(self, "norm_eps")
        for name, kinds in (
            ("query_norm", ("none", "l2", "zscore")),
            ("value_norm", ("none", "l2", "zscore")),
            ("scope", ("stream", "batch")),
            ("initial_weights", ("random", "learned")),
        ):
            if getattr(self, name) not in kinds:
                problems.append(
                    f"{name} must be one of {', '.join(kinds)}, got {name}={getattr(self, name)!r}"
                )
        if self.query_norm != "none" and self.key_dim % 2:
            problems.append(f"query_norm={self.query_norm!r} needs an even key_dim, got {self.key_dim}")
        if self.value_norm == "zscore" and self.value_dim == 1:
            problems.append("value_norm='zscore' needs value_dim of at least 2, got value_dim=1; use 'none'")
        try:
            self.core  # noqa: B018 - checks the fields that the arithmetic shares
        except ValueError as error:
            problems.append(str(error).removeprefix("FastMLPOptions: "))
        refuse("FastWeightMLPConfig", problems)

    @property
    def core(self) -> FastMLPOptions:
        """The part that defines the recurrence."""
        return FastMLPOptions(**{f.name: getattr(self, f.name) for f in fields(FastMLPOptions)})


class FastWeightMLP(MemoryFrame):
    r"""Ask a small network, and teach it by one gradient step after every chunk.

        v^ = W_down (silu(W_gate q + b_gate) * (W_up q + b_up)) + b_down

    Everything around it is as in `FwPKM`: projections, gate, and the state that is passed in and out
    (baseline of arXiv:2601.00671v2, as in the authors' release). Whole sequences, pieces of them and
    single tokens give the same numbers.

    >>> layer = FastWeightMLP(FastWeightMLPConfig(dim=32, hidden_dim=24, key_dim=16, value_dim=16, chunk_size=8))
    >>> x = torch.randn(2, 20, 32)
    >>> y, state = layer(x)
    >>> y, state = layer(x, state)
    """

    def __init__(self, config: FastWeightMLPConfig) -> None:
        super().__init__(
            dim=config.dim,
            query_dim=config.key_dim,
            head_dim=config.key_dim,
            value_dim=config.value_dim,
            query_norm=config.query_norm,
            value_norm=config.value_norm,
            gate_logits=config.gate_logits if config.gate else 0,
            eps=config.norm_eps,
            bias=config.bias,
        )
        self.config = config
        F, Dk, Dv = config.hidden_dim, config.key_dim, config.value_dim
        shapes: dict[str, tuple[int, ...]] = {"gate": (F, Dk), "up": (F, Dk), "down": (Dv, F)}
        shapes |= {"gate_bias": (F,), "up_bias": (F,), "down_bias": (Dv,)}
        for name in _WEIGHTS:
            add_initial(self, f"initial_{name}", shapes[name], learned=config.initial_weights == "learned")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw slow weights anew, and the initial fast weights as the config's `weight_seed` says."""
        self.reset_projections()
        self.reset_initial()

    def reset_initial(self) -> None:
        """Draw the initial fast weights; the same seed gives the same on every device."""
        draw = torch.Generator().manual_seed(self.config.weight_seed)
        for name in ("up", "gate", "down"):
            shape = getattr(self, f"initial_{name}").shape
            drawn = torch.empty(shape, dtype=torch.float32).normal_(0, shape[-1] ** -0.5, generator=draw)
            set_initial(self, f"initial_{name}", drawn)
            set_initial(self, f"initial_{name}_bias", drawn.new_zeros(shape[0]))

    @property
    def initial(self) -> FastMLP:
        """The network that every stream starts from."""
        return FastMLP(**{name: getattr(self, f"initial_{name}") for name in _WEIGHTS})

    @property
    def memory_dtype(self) -> torch.dtype:
        """Precision of the fast weights."""
        return self.initial.gate.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FastWeightMLP":
        """Move and convert as any module does, but never narrow the initial fast weights below float32."""
        super()._apply(keeping_exact(fn, [getattr(self, f"initial_{name}") for name in _WEIGHTS]), recurse)
        return self

    def initial_state(self, num_streams: int) -> FastMLPState:
        """Return fresh networks for `num_streams` streams that have seen no token."""
        config, fast = self.config, self._fresh(num_streams)
        packed = fast.gate.new_empty(0, config.key_dim + config.value_dim + 1)
        return FastMLPState(
            fast=fast,
            waiting=Waiting.empty(num_streams, packed),
            tokens_seen=(0,) * num_streams,
            options=config.core,
        )

    def _fresh(self, num_streams: int) -> FastMLP:
        S = 1 if self.config.scope == "batch" else num_streams
        return self.initial.map(lambda p: p.expand(S, *p.shape))

    def store_initial(self, state: FastMLPState, stream: int = 0) -> None:
        """Let later documents start from what one stream of `state` has learned."""
        for name in _WEIGHTS:
            set_initial(self, f"initial_{name}", getattr(state.fast, name)[stream])

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: FastMLPState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        write_mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], FastMLPState]:
        """Process the next `T` tokens of `B` streams.

        Args:
            x: Hidden states.
            state: What these streams have seen so far; None starts with a fresh network.
            mask: False for padding, left or right, which answers zeros. It neither reads nor writes; where
                streams share a network it does pass time, and only has no loss (authors' release, D7).
            write_mask: False for tokens that ask the network but are not to be learned.

        Returns:
            The layer's output before the residual, and the state after these tokens.

        Raises:
            ValueError: If widths, streams or mask do not fit, or, with `check_inputs`, at a non-finite number.
            TypeError: If `state` is another layer's.
        """
        config = self.config
        check_hidden("FastWeightMLP", x, config.dim, mask, refuse_nonfinite=config.check_inputs)
        if config.scope == "stream":
            x = hide_padding(x, mask)
        q, v, gate = self.project(x)
        v_hat, state = self._ask(q.squeeze(-2), v, state, mask, write_mask)
        return self.fuse(v_hat, v, gate, x, mask), state

    @uncompiled
    def _ask(
        self,
        q: Tensor,
        v: Tensor,
        state: FastMLPState | None,
        mask: Tensor | None,
        write_mask: Tensor | None,
    ) -> tuple[Float[Tensor, "B T Dv"], FastMLPState]:
        B, T, _ = v.shape
        state = self.initial_state(B) if state is None else state
        check_state("FastWeightMLP", state, FastMLPState)
        state.check_fits(self.config.core, num_streams=B, initial=self._fresh(B))
        if self.config.scope == "batch" and mask is not None:
            write_mask = mask if write_mask is None else mask & write_mask
        packing = None if self.config.scope == "batch" else packing_of(mask)
        tokens = pack_tokens(q, v, None if write_mask is None else write_mask.to(v.dtype))
        with torch.autocast(q.device.type, enabled=False):
            if packing is None:
                return state.advance(q, tokens, [T] * B)
            v_hat, state = state.advance(packing.pack(q), packing.pack(tokens), packing.lengths.tolist())
        return packing.unpack(v_hat), state


_WEIGHTS = tuple(f.name for f in fields(FastMLP))
