"""The FwPKM layer: hidden states in, hidden states and the next state out."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fwpkm.layers.frame import MemoryFrame
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.inputs import check_hidden, check_state
from fwpkm.layers.padding import hide_padding
from fwpkm.memory.remote import RemoteTable
from fwpkm.memory.state import FwPKMState
from fwpkm.ops.compiling import uncompiled


class FwPKM(MemoryFrame):
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
        super().__init__(
            dim=config.dim,
            query_dim=config.num_heads * config.key_dim,
            head_dim=config.key_dim,
            value_dim=config.value_dim,
            query_norm=config.query_norm,
            query_norm_over=config.query_norm_over,
            value_norm=config.value_norm,
            gate_logits=config.gate_logits if config.gate else 0,
            eps=config.norm_eps,
            bias=config.bias,
        )
        self.config, self._core = config, config.core
        log_temperature = torch.empty((), dtype=torch.promote_types(torch.get_default_dtype(), torch.float32))
        if config.learn_temperature:
            self.log_temperature: Tensor = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature, persistent=False)
        self._make_initial()
        self.remote_table: RemoteTable | None = None
        """Where the base table is, if `initial_values` is only this process's share of it."""
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
            values = torch.empty(config.num_slots, config.value_dim, dtype=self._row_dtype(dtype))
        if config.initial_values == "learned":
            assert values is not None
            self.initial_values: Tensor | None = nn.Parameter(values)
        else:
            self.register_buffer("initial_values", values, persistent=False)

    def reset_parameters(self) -> None:
        """Draw slow weights anew, and the initial memory as the config's `table_seed` says."""
        self.reset_projections()
        self.reset_temperature()
        self.reset_initial()

    def reset_temperature(self) -> None:
        """Let the temperature be the config's."""
        nn.init.constant_(self.log_temperature, math.log(self.config.temperature))

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
        """Move and convert as any module does, but keep the initial memory as precise as the config says."""
        names = ("initial_keys", "initial_values", "log_temperature")
        exact = {name: x.detach() for name in names if (x := getattr(self, name)) is not None}
        super()._apply(fn, recurse)
        for name, old in exact.items():
            new = getattr(self, name)
            half = new.dtype in (torch.float16, torch.bfloat16)
            dtype = torch.promote_types(old.dtype if half else new.dtype, torch.float32)
            if name == "initial_values":
                dtype = self._row_dtype(dtype)
            if new.dtype != dtype:
                new.data = old.to(new.device, dtype)
                new.grad = None if new.grad is None else new.grad.to(dtype)
        return self

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """Divides slot scores before they become read weights."""
        return self.log_temperature.exp()

    @property
    def memory_dtype(self) -> torch.dtype:
        """Precision of tables and sub-keys."""
        return self.initial_keys.dtype

    @property
    def row_dtype(self) -> torch.dtype:
        """What the base table and written rows are kept in."""
        return self._row_dtype(self.memory_dtype)

    def _row_dtype(self, memory_dtype: torch.dtype) -> torch.dtype:
        return torch.bfloat16 if self.config.table_dtype == "bfloat16" else memory_dtype

    @property
    def base_table(self) -> Float[Tensor, "N Dv"] | RemoteTable | None:
        """What every stream's table starts from; None stands for zeros."""
        return self.initial_values if self.remote_table is None else self.remote_table

    def initial_state(self, num_streams: int) -> FwPKMState:
        """Return a fresh memory for `num_streams` streams that have seen no token."""
        return FwPKMState.fresh(
            self.initial_keys,
            self.base_table,
            self._core,
            num_streams=num_streams,
            value_dim=self.config.value_dim,
            temperature=self.temperature.to(self.initial_keys.dtype),
            shared=self.config.table == "batch",
            row_dtype=self.row_dtype,
            sparse_grad=self.config.sparse_grad,
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
        *,
        write_mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], FwPKMState]:
        """Process the next `T` tokens of `B` streams.

        Args:
            x: Hidden states.
            state: What these streams have seen so far; None starts with a fresh memory.
            mask: False for padding, wherever it is. Padding neither reads nor writes, and answers zeros.
            write_mask: False for tokens that ask the memory but are not to be learned.

        Returns:
            The layer's output before the residual, and the state after these tokens.

        Raises:
            ValueError: If widths, streams or mask do not fit, or, with `check_inputs`, at a non-finite number.
            TypeError: If `state` is another layer's.
        """
        config = self.config
        check_hidden("FwPKM", x, config.dim, mask, refuse_nonfinite=config.check_inputs)
        if config.table == "stream" or x.shape[0] == 1:  # which shares its table with nobody
            x = hide_padding(x, mask)
        q, v, gate = self.project(x)
        v_hat, state = self._ask(q, v, gate, state, mask, write_mask)
        return self.fuse(v_hat, v, gate, x, mask), state

    @uncompiled
    def _ask(
        self,
        q: Tensor,
        v: Tensor,
        gate: Tensor | None,
        state: FwPKMState | None,
        mask: Tensor | None,
        write_mask: Tensor | None,
    ) -> tuple[Float[Tensor, "B T Dv"], FwPKMState]:
        state = self.initial_state(q.shape[0]) if state is None else state
        self._check(state, q.shape[0])
        state = replace(state, temperature=self.temperature.to(state.keys.dtype))
        weight = gate if self.config.gate_weighted_loss else None
        with torch.autocast(q.device.type, enabled=False):
            return state.advance(q, v, weight, mask, write_mask=write_mask)

    def _check(self, state: FwPKMState, num_streams: int) -> None:
        config = self.config
        check_state("FwPKM", state, FwPKMState)
        state.check_fits(
            self._core,
            num_streams=num_streams,
            keys=self.initial_keys,
            value_dim=config.value_dim,
            shared=config.table == "batch",
        )
