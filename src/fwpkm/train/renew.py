"""Let some streams of a cache start afresh while the others go on: their documents ended earlier."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from fwpkm.layers.conv import ShortConvState
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNetState
from fwpkm.layers.kv import KVState
from fwpkm.layers.lact import LaCTState
from fwpkm.memory.fast_mlp import FastMLPState
from fwpkm.memory.lact import LaCTMemory
from fwpkm.memory.overlay import Overlay
from fwpkm.memory.state import FwPKMState
from fwpkm.memory.waiting import Waiting
from fwpkm.models.cache import BlockState, DecoderCache, MemoryState, MixerState
from fwpkm.models.decoder import Decoder
from fwpkm.ops.addressing import key_squares

T = TypeVar("T")
W = TypeVar("W", FwPKMState, FastMLPState, LaCTMemory)


def renew_streams(
    cache: DecoderCache | None, fresh: Bool[Tensor, " B"], model: Decoder
) -> DecoderCache | None:
    """Return a cache in which the streams `fresh` have seen nothing; None if that is all of them.

    What the model learned to begin with gets its gradient through it, as through a fresh cache.

    Raises:
        ValueError: If some but not all streams start afresh and they share one memory.
    """
    if cache is None or bool(fresh.all()):
        return None
    if not bool(fresh.any()):
        return cache
    fresh = fresh.to(cache.tokens_seen.device)
    pairs = zip(cache.blocks, model.blocks, strict=True)
    return DecoderCache(blocks=tuple(_block(state, block, fresh) for state, block in pairs))


def _block(state: BlockState, block: Any, fresh: Tensor) -> BlockState:
    return BlockState(
        mixer=_mixer(state.mixer, block.mixer, fresh),
        memory=None if state.memory is None else _memory(state.memory, block.memory, fresh),
        conv=None if state.conv is None else _conv(state.conv, fresh),
    )


def _conv(state: ShortConvState, fresh: Tensor) -> ShortConvState:
    return replace(state, tail=_zeroed(state.tail, fresh), tokens_seen=_zeroed(state.tokens_seen, fresh))


def _mixer(state: MixerState, mixer: Any, fresh: Tensor) -> MixerState:
    if isinstance(state, KVState):
        return _kv(state, fresh)
    if isinstance(state, GatedDeltaNetState):
        return replace(state, conv=_conv(state.conv, fresh), memory=_zeroed(state.memory, fresh))
    assert isinstance(state, LaCTState)
    initial = mixer.initial_state(state.attention.keys.new_zeros(1, 0, 1)).memory.fast
    memory = replace(state.memory, fast=_mixed(state.memory.fast, initial, fresh))
    return LaCTState(attention=_kv(state.attention, fresh), memory=_restarted(memory, fresh))


def _kv(state: KVState, fresh: Tensor) -> KVState:
    keys, v, seen = (_zeroed(x, fresh) for x in (state.keys, state.v, state.tokens_seen))
    return replace(state, keys=keys, v=v, tokens_seen=seen, shortest=0, room=None)


def _memory(state: MemoryState, memory: Any, fresh: Tensor) -> MemoryState:
    if state.is_shared:
        raise ValueError(
            "renew_streams: streams that share one memory cannot start afresh one by one; train with table='stream' "
            "(or scope='stream'), or with train.carry='sequence'"
        )
    if isinstance(state, FwPKMState):
        return _fwpkm(state, memory, fresh)
    fast = _mixed(state.fast, memory.initial_state(1).fast, fresh)
    return _restarted(replace(state, fast=fast), fresh)


def _fwpkm(state: FwPKMState, memory: FwPKM, fresh: Tensor) -> FwPKMState:
    keys = _mixed(state.keys, memory.initial_keys, fresh)
    store = state.table.store
    index = store.index.masked_fill(fresh[:, None], -1)
    table = Overlay(store.replaced(index, store.rows).compacted())
    squares = key_squares(keys.detach(), state.options.score)
    return _restarted(replace(state, keys=keys, key_squares=squares, table=table), fresh)


def _zeroed(x: Tensor, fresh: Tensor) -> Tensor:
    return x.masked_fill(_column(fresh, x), 0)


def _mixed(old: T, initial: T, fresh: Tensor) -> T:
    """Take the fresh streams' numbers from `initial`, in a tree of dataclasses and tuples alike."""
    if isinstance(old, Tensor):
        return torch.where(_column(fresh, old), initial, old)  # type: ignore[call-overload]
    if isinstance(old, tuple):
        assert isinstance(initial, tuple)
        pairs = zip(old, initial, strict=True)
        return tuple(_mixed(x, y, fresh) for x, y in pairs)  # type: ignore[return-value]
    if is_dataclass(old) and not isinstance(old, type):
        names = [f.name for f in fields(old)]
        return replace(old, **{n: _mixed(getattr(old, n), getattr(initial, n), fresh) for n in names})
    return old


def _column(fresh: Tensor, like: Tensor) -> Tensor:
    return fresh.view(-1, *(1,) * (like.ndim - 1))


def _restarted(state: W, fresh: Tensor) -> W:
    """Let no token of the fresh streams wait, nor have been seen."""
    new = fresh.tolist()
    counts = [0 if b else n for b, n in zip(new, state.waiting.counts, strict=True)]
    waiting = Waiting.of(state.waiting.packed[:, : max(counts)].clone(), counts)
    seen = tuple(0 if b else n for b, n in zip(new, state.tokens_seen, strict=True))
    return replace(state, waiting=waiting, tokens_seen=seen)
