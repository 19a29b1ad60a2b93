"""How many numbers a decoder has, and how many bytes a stream's state takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fwpkm.layers.attention import Attention
from fwpkm.layers.conv import ShortConv
from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNet
from fwpkm.layers.lact import LaCT
from fwpkm.layers.pkm import ProductKeyMemory
from fwpkm.models.base_config import BaseConfig
from fwpkm.models.decoder import Decoder
from fwpkm.models.parts import PARTS, parts_of
from fwpkm.ops.core.schedule import Chunking, count_written
from fwpkm.state import iter_tensors

WIDE = 4
"""Bytes of a number that is never narrower than float32: fast weights and what they learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """How many numbers there are, by who changes them."""

    slow: int = 0
    """Trained by the outer optimiser, tables not counted."""
    table: int = 0
    """Rows of tables that the outer optimiser trains; a token touches few of them."""
    fast: int = 0
    """Fast weights of one stream, rewritten while it is read. What they start from is drawn from a seed and no
    parameter, or counted as `table` or `slow` if it is trained."""

    def __add__(self, other: "Numbers") -> "Numbers":
        return Numbers(
            slow=self.slow + other.slow, table=self.table + other.table, fast=self.fast + other.fast
        )

    @property
    def trained(self) -> int:
        """Parameters in PyTorch's sense: sum(p.numel() for p in model.parameters())."""
        return self.slow + self.table


def count_numbers(model: Decoder | BaseConfig) -> dict[str, Numbers]:
    """Count the numbers of every part that the decoder has; tied weights count once. Of a base, its memories alone."""
    found: dict[str, Numbers] = {}
    for part, module in parts_of(model):
        found[part] = found.get(part, Numbers()) + _numbers_of(module)
    return {part: found[part] for part in PARTS if part in found}


def state_bytes(
    model: Decoder | BaseConfig, tokens: int, *, dtype: torch.dtype = torch.float32
) -> dict[str, int]:
    """Count the bytes of one stream's state after `tokens` tokens, part by part.

    Attention holds the keys and values that it still sees, so full attention grows for ever; recurrences and fast
    networks stay as they are. FwPKM holds its sub-keys, the index of its N slots and the rows that were written: at
    most as many as there are slots, and as were read by the tokens written so far, which is what is counted here. A
    last chunk that is not yet full waits. Spare room, and what states share with the model, are not counted.

    Args:
        model: The decoder; one on the meta device will do. Of a base, its memories are counted.
        tokens: Tokens that the stream has seen.
        dtype: Of the hidden states.

    Raises:
        ValueError: If `tokens` is negative.
    """
    if tokens < 0:
        raise ValueError(f"state_bytes: tokens must be at least 0, got tokens={tokens}")
    found: dict[str, int] = {}
    for part, module in parts_of(model):
        for kind, count in _STATES.items():
            if isinstance(module, kind):
                found[part] = found.get(part, 0) + count(module, tokens, dtype.itemsize)
    return {part: found[part] for part in PARTS if part in found}


def visible_tokens(tokens: int, window: int | None) -> int:
    """Count the tokens of a stream that the next one can still attend to, besides itself."""
    return tokens if window is None else min(tokens, window - 1)


def _numbers_of(module: nn.Module) -> Numbers:
    total = sum(p.numel() for p in module.parameters())
    table = 0
    if isinstance(module, ProductKeyMemory):
        table = module.values.numel()
    if isinstance(module, FwPKM) and isinstance(module.initial_values, nn.Parameter):
        table = module.initial_values.numel()
    return Numbers(slow=total - table, table=table, fast=_num_fast(module))


def _num_fast(module: nn.Module) -> int:
    if isinstance(module, FwPKM):
        return module.initial_keys.numel() + module.config.num_slots * module.config.value_dim
    if isinstance(module, FastWeightMLP):
        return sum(p.numel() for p in iter_tensors(module.initial))
    if isinstance(module, LaCT):
        return 3 * module.initial_down.numel()
    return 0


def _attention(layer: Attention, tokens: int, size: int) -> int:
    config = layer.config
    return 2 * visible_tokens(tokens, config.window) * config.num_kv_heads * config.head_dim * size


def _gated_delta_net(layer: GatedDeltaNet, tokens: int, size: int) -> int:
    config = layer.config
    matrices = config.num_value_heads * config.key_head_dim * config.value_head_dim
    return _short_conv(layer.conv1d, tokens, size) + matrices * max(size, WIDE)


def _short_conv(layer: ShortConv, tokens: int, size: int) -> int:
    dim, _, kernel_size = layer.weight.shape
    return (kernel_size - 1) * dim * size


def _lact(layer: LaCT, tokens: int, size: int) -> int:
    config = layer.config
    window = 2 * visible_tokens(tokens, config.window) * config.width * size
    networks = _num_fast(layer) * (2 if config.momentum else 1)
    lengths = config.num_fast_heads * (2 * config.fast_hidden_dim + config.fast_head_dim)
    line = 2 * config.width + (4 if config.momentum else 3) * config.num_fast_heads
    return window + (networks + lengths + _num_waiting(tokens, config.core) * line) * max(size, WIDE)


def _fast_mlp(layer: FastWeightMLP, tokens: int, size: int) -> int:
    config = layer.config
    line = config.key_dim + config.value_dim + 1
    return (_num_fast(layer) + _num_waiting(tokens, config.core) * line) * layer.memory_dtype.itemsize


def _fwpkm(layer: FwPKM, tokens: int, size: int) -> int:
    config, wide = layer.config, layer.memory_dtype.itemsize
    pairs = count_written(tokens, config.core) * config.num_heads * config.topk
    rows = min(config.num_slots, pairs) * config.value_dim
    line = config.num_heads * config.key_dim + config.value_dim + 2
    waiting = _num_waiting(tokens, config.core) * line
    index = config.num_slots * torch.int32.itemsize
    return (layer.initial_keys.numel() + waiting) * wide + rows * layer.row_dtype.itemsize + index


def _num_waiting(tokens: int, options: Chunking) -> int:
    return tokens - count_written(tokens, options)


_STATES: dict[type[nn.Module], Callable[[Any, int, int], int]] = {
    Attention: _attention,
    GatedDeltaNet: _gated_delta_net,
    LaCT: _lact,
    FwPKM: _fwpkm,
    FastWeightMLP: _fast_mlp,
    ShortConv: _short_conv,
}
