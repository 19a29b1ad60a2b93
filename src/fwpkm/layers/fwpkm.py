"""The FwPKM layer: hidden states in, hidden states and the next state out."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.norm import RMSNorm, at_least_float32
from fwpkm.layers.padding import hide_padding
from fwpkm.memory.overlay import Overlay
from fwpkm.memory.state import FwPKMState
from fwpkm.memory.waiting import Waiting

_TINY_VARIANCE = 1e-30
"""Below it a vector counts as constant; keeps the z-score's gradient finite there."""


class FwPKM(nn.Module):
    r"""Read from a large table by product keys, and rewrite what was read after every chunk.

        q = W_q RMSNorm(x) ;  v = zscore(W_v RMSNorm(x)) ;  g = sigmoid(W_g RMSNorm(x))
        y = W_o RMSNorm(g v^ + (1 - g) v)

    with v^ what the memory retrieves for q  (Zhao & Jones, arXiv:2601.00671v2, Sec. 3). The module holds the
    slow weights and what a fresh memory starts from; the fast weights are a `FwPKMState` that is passed in
    and out. Whole sequences, pieces of them and single tokens give the same numbers.

    >>> layer = FwPKM(FwPKMConfig(dim=32, num_subkeys=16, key_dim=16, value_dim=16, chunk_size=8))
    >>> x = torch.randn(2, 20, 32)
    >>> y, state = layer(x)
    >>> y, state = layer(x, state)
    """

    def __init__(self, config: FwPKMConfig) -> None:
        super().__init__()
        self.config = config
        D, width, eps, bias = config.dim, config.num_heads * config.key_dim, config.norm_eps, config.bias
        self.q_norm, self.q_proj = RMSNorm(D, eps=eps), nn.Linear(D, width, bias=bias)
        self.v_norm, self.v_proj = RMSNorm(D, eps=eps), nn.Linear(D, config.value_dim, bias=bias)
        if config.gate:
            self.gate_norm, self.gate_proj = RMSNorm(D, eps=eps), nn.Linear(D, config.gate_logits, bias=bias)
        self.out_norm = RMSNorm(config.value_dim, eps=eps)
        self.out_proj = nn.Linear(config.value_dim, D, bias=bias)
        log_temperature = torch.tensor(math.log(config.temperature))
        if config.learn_temperature:
            self.log_temperature: Tensor = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature, persistent=False)
        self._make_initial()
        self.reset_parameters()

    def _make_initial(self) -> None:
        config, dtype = self.config, torch.promote_types(torch.get_default_dtype(), torch.float32)
        keys = torch.empty(2, config.num_heads, config.num_subkeys, config.key_dim // 2, dtype=dtype)
        if config.initial_keys == "learned":
            self.initial_keys: Tensor = nn.Parameter(keys)
        else:
            self.register_buffer("initial_keys", keys)
        values = None
        if config.initial_values != "zero":
            values = torch.empty(config.num_slots, config.value_dim, dtype=dtype)
        if config.initial_values == "learned":
            assert values is not None
            self.initial_values: Tensor | None = nn.Parameter(values)
        else:
            self.register_buffer("initial_values", values, persistent=False)

    def reset_parameters(self) -> None:
        """Draw slow weights anew, and the initial memory as the config's `table_seed` says."""
        for module in (
            self.q_proj,
            self.v_proj,
            self.out_proj,
            *([self.gate_proj] if self.config.gate else []),
        ):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        self.reset_initial()

    @torch.no_grad()
    def reset_initial(self) -> None:
        """Draw the initial sub-keys and the base table; the same seed gives the same on every device."""
        config = self.config
        draw = torch.Generator().manual_seed(config.table_seed)
        keys = torch.empty(self.initial_keys.shape, dtype=torch.float32)
        if config.key_std is None:
            bound = config.key_dim**-0.5
            keys.uniform_(-bound, bound, generator=draw)
        else:
            keys.normal_(0, config.key_std, generator=draw)
        self.initial_keys.copy_(keys)
        if self.initial_values is not None:
            std = config.value_dim**-0.5
            values = torch.empty(self.initial_values.shape, dtype=torch.float32)
            self.initial_values.copy_(values.normal_(0, std, generator=draw))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FwPKM":
        """Move and convert as any module does, but never narrow the initial memory below float32."""
        names = ("initial_keys", "initial_values", "log_temperature")
        exact = {name: x.detach() for name in names if (x := getattr(self, name)) is not None}
        super()._apply(fn, recurse)
        for name, old in exact.items():
            new = getattr(self, name)
            if new.dtype in (torch.float16, torch.bfloat16):
                new.data = at_least_float32(old).to(new.device)
                new.grad = None if new.grad is None else new.grad.to(new.dtype)
        return self

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """Divides slot scores before they become read weights."""
        return self.log_temperature.exp()

    def initial_state(self, num_streams: int) -> FwPKMState:
        """Return a fresh memory for `num_streams` streams that have seen no token."""
        config = self.config
        num_tables = 1 if config.table == "batch" else num_streams
        packed_width = config.num_heads * config.key_dim + config.value_dim + 2
        keys = self.initial_keys
        return FwPKMState(
            keys=keys.expand(num_tables, *keys.shape),
            table=Overlay.fresh(
                self.initial_values,
                num_tables,
                config.num_slots,
                keys.new_empty(0, config.value_dim),
                sparse_grad=config.sparse_grad,
            ),
            waiting=Waiting.empty(num_streams, keys.new_empty(0, packed_width)),
            tokens_seen=(0,) * num_streams,
            options=config.core,
            temperature=self.temperature.to(keys.dtype),
        )

    @torch.no_grad()
    def store_initial(self, state: FwPKMState, stream: int = 0) -> None:
        """Let later documents start from what one stream of `state` has learned.

        States that exist already keep their numbers, but for a trained initial memory: as after any step of an
        optimizer, what they have not written follows the parameter.
        """
        if self.initial_values is None:
            raise ValueError(
                "FwPKM.store_initial: initial_values='zero' keeps no base table to store into; use 'random'"
            )
        values = state.table.dense()[stream]
        for name, learned in (("initial_keys", state.keys[stream]), ("initial_values", values)):
            old = getattr(self, name)
            if isinstance(old, nn.Parameter):
                old.copy_(learned)
            else:
                setattr(self, name, learned.to(old, copy=True))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: FwPKMState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], FwPKMState]:
        """Process the next `T` tokens of `B` streams.

        Args:
            x: Hidden states.
            state: What these streams have seen so far; None starts with a fresh memory.
            mask: False for padding, wherever it is. Padding neither reads nor writes, and answers zeros.

        Returns:
            The layer's output before the residual, and the state after these tokens.

        Raises:
            ValueError: If widths, streams or mask do not fit, or, with `check_inputs`, at a non-finite number.
        """
        state = self.initial_state(x.shape[0]) if state is None else state
        self._check(x, state, mask)
        if not state.is_shared:
            x = hide_padding(x, mask)
        state = replace(state, temperature=self.temperature.to(state.keys.dtype))
        q, v, gate = self.project(x)
        weight = gate if self.config.gate_weighted_loss else None
        with torch.autocast(x.device.type, enabled=False):
            v_hat, state = state.advance(q, v, weight, mask)
        mixed = v_hat + v if gate is None else v + gate[..., None] * (v_hat - v)
        y = self.out_proj(self.out_norm(mixed.to(x.dtype)))
        return hide_padding(y, mask), state

    def project(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T H Dk"], Float[Tensor, "B T Dv"], Float[Tensor, "B T"] | None]:
        """Return queries, values and gates (None without a gate) in the precision of the memory."""
        config, dtype = self.config, self.initial_keys.dtype
        q = self.q_proj(self.q_norm(x)).to(dtype).unflatten(-1, (config.num_heads, config.key_dim))
        if config.query_norm != "none":
            q = _normalise(q.unflatten(-1, (2, -1)), config.query_norm).flatten(-2)
        v = self.v_proj(self.v_norm(x)).to(dtype)
        if config.value_norm != "none":
            v = _normalise(v, config.value_norm)
        if not config.gate:
            return q, v, None
        return q, v, self.gate_proj(self.gate_norm(x)).to(dtype).mean(-1).sigmoid()

    def _check(self, x: Tensor, state: FwPKMState, mask: Tensor | None) -> None:
        config, B, T = self.config, x.shape[0], x.shape[1]
        if x.shape[-1] != config.dim:
            raise ValueError(f"FwPKM: x must be [B, T, dim={config.dim}], got x {tuple(x.shape)}")
        if mask is not None and (mask.shape != (B, T) or mask.dtype != torch.bool):
            raise ValueError(
                f"FwPKM: mask must be bool [B, T] = [{B}, {T}], True for real tokens, got mask "
                f"{tuple(mask.shape)} of {mask.dtype}"
            )
        state.check_fits(
            config.core,
            num_streams=B,
            keys=self.initial_keys,
            value_dim=config.value_dim,
            shared=config.table == "batch",
        )
        if config.check_inputs and not bool(x.isfinite().all()):
            raise ValueError(
                f"FwPKM: x must be finite, got {int((~x.isfinite()).sum())} NaN or infinite numbers of {x.numel()}"
            )


def _normalise(x: Tensor, kind: str) -> Tensor:
    """Normalise the last dimension: "l2" to length 1, "zscore" to zero mean and unit standard deviation."""
    if kind == "l2":
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
    if not x.numel():
        return x
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True)
    return (x - mean) / (variance.clamp_min(_TINY_VARIANCE).sqrt() + 1e-6)
