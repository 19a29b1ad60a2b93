"""Let some streams of a cache start afresh while the others go on: their documents ended earlier."""

from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.distributed.tensor import DTensor

from fwpkm.layers.conv import ShortConvState
from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNetState
from fwpkm.layers.kv import KVState
from fwpkm.memory.fast_mlp import FastMLPState
from fwpkm.memory.overlay import Overlay
from fwpkm.memory.state import FwPKMState
from fwpkm.memory.waiting import Waiting
from fwpkm.models.cache import BlockState, DecoderCache, MemoryState, MixerState
from fwpkm.models.decoder import Decoder
from fwpkm.ops.addressing import key_squares

F = TypeVar("F", FwPKMState, FastMLPState)


def renew_streams(
    cache: DecoderCache | None, fresh: Bool[Tensor, " B"], model: Decoder
) -> DecoderCache | None:
    """Return a cache in which the streams `fresh` have seen nothing; None if that is all of them.

    Raises:
        ValueError: If some but not all streams start afresh and they share one memory.
    """
    if cache is None or bool(fresh.all()):
        return None
    if not bool(fresh.any()):
        return cache
    fresh = fresh.to(cache.tokens_seen.device)
    pairs = zip(cache.blocks, model.blocks, strict=True)
    return DecoderCache(blocks=tuple(_block(state, block.memory, fresh) for state, block in pairs))


def _block(state: BlockState, memory: object, fresh: Tensor) -> BlockState:
    conv = None if state.conv is None else _conv(state.conv, fresh)
    return BlockState(
        mixer=_mixer(state.mixer, fresh), memory=_memory(state.memory, memory, fresh), conv=conv
    )


def _zeroed(x: Tensor, fresh: Tensor) -> Tensor:
    return x.masked_fill(fresh.view(-1, *(1,) * (x.ndim - 1)), 0)


def _conv(state: ShortConvState, fresh: Tensor) -> ShortConvState:
    return replace(state, tail=_zeroed(state.tail, fresh), tokens_seen=_zeroed(state.tokens_seen, fresh))


def _mixer(state: MixerState, fresh: Tensor) -> MixerState:
    if isinstance(state, KVState):
        return replace(
            state,
            keys=_zeroed(state.keys, fresh),
            v=_zeroed(state.v, fresh),
            tokens_seen=_zeroed(state.tokens_seen, fresh),
            shortest=0,
            room=None,
        )
    assert isinstance(state, GatedDeltaNetState)
    return replace(state, conv=_conv(state.conv, fresh), memory=_zeroed(state.memory, fresh))


def _memory(state: MemoryState | None, memory: object, fresh: Tensor) -> MemoryState | None:
    if state is None:
        return None
    if state.is_shared:
        raise ValueError(
            "renew_streams: streams that share one memory cannot start afresh one by one; train with table='stream' "
            "(or scope='stream'), or with train.carry='sequence'"
        )
    if isinstance(state, FwPKMState):
        assert isinstance(memory, FwPKM)
        return _fwpkm(state, memory, fresh)
    assert isinstance(memory, FastWeightMLP)
    initial = memory.initial_state(1).fast
    tensors = {name: _mixed(getattr(state.fast, name), x, fresh) for name, x in _tensors(initial).items()}
    return _restarted(replace(state, fast=replace(state.fast, **tensors)), fresh)


def _tensors(value: object) -> dict[str, Tensor]:
    named = ((name, getattr(value, name)) for name in value.__dataclass_fields__)  # type: ignore[attr-defined]
    return {name: x for name, x in named if isinstance(x, Tensor)}


def _fwpkm(state: FwPKMState, memory: FwPKM, fresh: Tensor) -> FwPKMState:
    keys = _mixed(state.keys, memory.initial_keys.detach(), fresh)
    store = state.table.store
    index = store.index.masked_fill(fresh[:, None], -1)
    table = Overlay(store.replaced(index, store.rows).compacted())
    squares = key_squares(keys, state.options.score)
    return _restarted(replace(state, keys=keys, key_squares=squares, table=table), fresh)


def _mixed(old: Tensor, initial: Tensor, fresh: Tensor) -> Tensor:
    initial = initial.full_tensor() if isinstance(initial, DTensor) else initial
    return torch.where(fresh.view(-1, *(1,) * (old.ndim - 1)), initial.detach(), old)


def _restarted(state: F, fresh: Tensor) -> F:
    """Let no token of the fresh streams wait, nor have been seen."""
    new = fresh.tolist()
    counts = [0 if b else n for b, n in zip(new, state.waiting.counts, strict=True)]
    held = max(counts)
    waiting = Waiting.of(state.waiting.packed[:, :held].clone(), counts)
    seen = tuple(0 if b else n for b, n in zip(new, state.tokens_seen, strict=True))
    return replace(state, waiting=waiting, tokens_seen=seen)
