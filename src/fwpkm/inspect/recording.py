"""Reading a document with everything noted: what each token read, and what the model knew after each reading."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.models.trace import MemoryTrace
from fwpkm.sessions.engine import Progress, flushed, fresh_cache

Traces = tuple[MemoryTrace | None, ...]
"""What each block's memory did; None for a block without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One document, read once or several times in a row."""

    ids: Int[Tensor, " T"]
    """Its tokens."""
    traces: tuple[Traces, ...]
    """What the memories did in each reading."""
    caches: tuple[DecoderCache, ...]
    """What a session would know that had stopped after each reading, with its journal."""

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.ids)

    @property
    def times(self) -> int:
        """How often the document was read."""
        return len(self.traces)


@torch.no_grad()
def record(
    model: Decoder,
    ids: Int[Tensor, " T"],
    *,
    times: int = 1,
    piece: int = 2048,
    progress: Progress | None = None,
) -> Recording:
    """Read a document `times` times in a row, as a session with a journal does, and note everything.

    Args:
        model: Must have a memory in some layer.
        ids: The document, at least one token.
        times: How often to read it.
        piece: Tokens that are read at once.
        progress: Told how many tokens are done, and how many there are.

    Raises:
        ValueError: If there is nothing to read or no memory, or the memories' options cannot be noted.
    """
    _check(model, ids, times, piece)
    cache, tokens = fresh_cache(model).with_journal(), ids.to(model.head_weight.device)[None]
    traces, caches = [], []
    for reading in range(times):
        parts = []
        for start in range(0, len(ids), piece):
            output = model(tokens[:, start : start + piece], cache, logits_to_keep=0, trace=True)
            cache = output.cache
            parts.append(output.traces)
            if progress is not None:
                progress(reading * len(ids) + min(start + piece, len(ids)), times * len(ids))
        traces.append(tuple(_join(own) for own in zip(*parts, strict=True)))
        caches.append(flushed(cache))
    return Recording(ids=ids, traces=tuple(traces), caches=tuple(caches))


def slot_memories(cache: DecoderCache) -> dict[int, FwPKMState]:
    """Return the memories with slots of a cache, by their layer."""
    blocks = enumerate(cache.blocks)
    return {layer: block.memory for layer, block in blocks if isinstance(block.memory, FwPKMState)}


def _check(model: Decoder, ids: Tensor, times: int, piece: int) -> None:
    problems = [
        f"{name} must be at least 1, got {name}={value}"
        for name, value in (("times", times), ("piece", piece))
        if value < 1
    ]
    if not len(ids):
        problems.append("the document must have a token, got an empty one")
    if not (model.config.fwpkm_layers or model.config.fwmlp_layers):
        problems.append("the model must have a memory, got one without fwpkm_layers and fwmlp_layers")
    if problems:
        raise ValueError("inspect: " + "; ".join(problems))


def _join(parts: Sequence[MemoryTrace | None]) -> MemoryTrace | None:
    """Put the traces of one memory's pieces one behind the other."""
    traces = [part for part in parts if part is not None]
    if not traces:
        return None
    fields = [[getattr(trace, name) for trace in traces] for name in ("gate", "slots", "weights")]
    gate, slots, weights = (None if own[0] is None else torch.cat(own, dim=1) for own in fields)
    return MemoryTrace(gate=gate, slots=slots, weights=weights)
