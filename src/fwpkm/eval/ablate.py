"""What becomes of an answer when the memory says nothing, never learns, or belongs to another document."""

from collections.abc import Callable
from dataclasses import replace

import torch

from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.memory.fast_mlp import FastMLPState
from fwpkm.memory.overlay import Overlay
from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import BlockState, DecoderCache, MemoryState
from fwpkm.models.decoder import Decoder
from fwpkm.state import map_tensors


def has_memory(model: Decoder) -> bool:
    """Whether some layer has a memory that can be taken away (LaCT's is one with its token mixer)."""
    return any(block.memory is not None for block in model.blocks)


def silence(cache: DecoderCache) -> DecoderCache:
    """Return the same with memories of which every read retrieves zeros, whatever is read from now on."""
    return _over_memories(cache, _silent)


def exchange(cache: DecoderCache) -> DecoderCache:
    """Give streams 0 and 1, 2 and 3, ... each other's memories; token mixers stay.

    Raises:
        ValueError: If the number of streams is odd, or they share one memory.
    """
    if cache.num_streams % 2:
        raise ValueError(f"exchange: the number of streams must be even, got {cache.num_streams}")
    neighbours = torch.arange(cache.num_streams, device=cache.tokens_seen.device) ^ 1
    return _over_memories(cache, lambda memory: memory.select(neighbours))


def carry_over(cache: DecoderCache, fresh: DecoderCache) -> DecoderCache:
    """Return `fresh` with the memories of `cache`: another document begins, and what was learned stays."""
    pairs = zip(fresh.blocks, cache.blocks, strict=True)
    return DecoderCache(blocks=tuple(replace(new, memory=old.memory) for new, old in pairs))


def shares_memory(model: Decoder) -> bool:
    """Whether a memory is shared by all streams of a batch, so that each must be read alone."""
    kinds = [module for module in model.modules() if isinstance(module, FwPKM | FastWeightMLP)]
    return any(
        (kind.config.table if isinstance(kind, FwPKM) else kind.config.scope) == "batch" for kind in kinds
    )


def _over_memories(cache: DecoderCache, fn: Callable[[MemoryState], MemoryState]) -> DecoderCache:
    def one(block: BlockState) -> BlockState:
        return block if block.memory is None else replace(block, memory=fn(block.memory))

    return DecoderCache(blocks=tuple(one(block) for block in cache.blocks))


def _silent(memory: MemoryState) -> MemoryState:
    if isinstance(memory, FastMLPState):
        return replace(memory, fast=map_tensors(memory.fast, torch.zeros_like), frozen=True)
    assert isinstance(memory, FwPKMState)
    num_tables, num_slots = memory.keys.shape[0], memory.keys.shape[3] ** 2
    like = memory.keys.new_empty(0, memory.table.store.rows.shape[1])
    return replace(memory, table=Overlay.fresh(None, num_tables, num_slots, like), frozen=True)
