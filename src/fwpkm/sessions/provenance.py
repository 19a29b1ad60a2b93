"""Where a session's answers come from, and sessions that forget a document."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.memory.forget import forget
from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import BlockState, DecoderCache
from fwpkm.models.decoder import Decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceToken:
    """A token whose value is in what an answer read."""

    layer: int
    """Which block's memory was read."""
    token: int
    """The token whose query chose the slots, counted through the session."""
    written: int
    """The token whose value was written: `lookahead` later."""
    weight: float
    """How much of that value was read, times how far the reader's gate was open; over all of the answer's tokens."""


@torch.no_grad()
def find_sources(
    model: Decoder, cache: DecoderCache, ids: Int[Tensor, " T"], *, last: int, most: int
) -> list[SourceToken]:
    """Name the tokens behind what the `last` of the tokens `ids` read, the strongest first.

    Raises:
        ValueError: If the memories keep no journal, or there is none.
    """
    output = model(ids[None].to(model.head_weight.device), cache, logits_to_keep=0, trace=True)
    memories = _memories(cache)
    if not memories or any(state.table.journal is None for state in memories.values()):
        raise ValueError(
            "why: the session must keep a journal; make it with journal=True, on a model with FwPKM layers"
        )
    found: dict[tuple[int, int], float] = {}
    for layer, state in memories.items():
        trace = output.traces[layer]
        assert trace is not None
        assert trace.slots is not None
        assert trace.weights is not None
        weights = trace.weights[0, -last:]
        if trace.gate is not None:
            weights = weights * trace.gate[0, -last:, None, None]
        assert state.table.journal is not None
        slots = trace.slots[0, -last:].flatten()
        for source in state.table.journal.sources(slots, weights.flatten(), most=most):
            found[layer, source.token] = source.weight
    best = sorted(found.items(), key=lambda item: -abs(item[1]))[:most]
    return [
        SourceToken(
            layer=layer, token=token, written=token + memories[layer].options.lookahead, weight=weight
        )
        for (layer, token), weight in best
    ]


def forget_tokens(cache: DecoderCache, start: int, stop: int) -> DecoderCache:
    """Take tokens [start, stop) out of all FwPKM memories; see `fwpkm.memory.forget.forget`.

    Token mixers, short convolutions and other memories stay what they are.
    """

    def without(block: BlockState) -> BlockState:
        if not isinstance(block.memory, FwPKMState):
            return block
        return replace(block, memory=forget(block.memory, start, stop).state)

    return DecoderCache(blocks=tuple(without(block) for block in cache.blocks))


def _memories(cache: DecoderCache) -> dict[int, FwPKMState]:
    blocks: Sequence[BlockState] = cache.blocks
    return {i: block.memory for i, block in enumerate(blocks) if isinstance(block.memory, FwPKMState)}
