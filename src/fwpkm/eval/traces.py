"""What the memories did while a model read: traces of all tokens, layer by layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from fwpkm.eval.ablate import has_memory, shares_memory
from fwpkm.eval.reader import padded
from fwpkm.models.decoder import Decoder
from fwpkm.models.trace import MemoryTrace
from fwpkm.sessions.engine import fresh_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTrace:
    """One layer's memory during one stream."""

    layer: int
    gate: Float[np.ndarray, " T"] | None
    """How much of each answer was retrieved; None for a layer without a gate."""
    slots: Int[np.ndarray, "T J"] | None
    """All slots that each token read; None for a memory without slots."""
    weights: Float[np.ndarray, "T J"] | None
    """Their read weights."""


def trace_streams(
    model: Decoder, streams: Sequence[Int[np.ndarray, " _"]], *, batch_size: int, piece: int = 1024
) -> Iterator[list[StreamTrace]]:
    """Let a model read streams of tokens with fresh memories, and yield for each what its memories did.

    Raises:
        ValueError: If the model has no memory.
    """
    if not has_memory(model):
        raise ValueError("trace: the model has no memory of its own to look into; give one with FwPKM layers")
    size = 1 if shares_memory(model) else batch_size
    for i in range(0, len(streams), size):
        yield from _read(model.eval(), streams[i : i + size], piece)


@torch.no_grad()
def _read(
    model: Decoder, streams: Sequence[Int[np.ndarray, " _"]], piece: int
) -> Iterator[list[StreamTrace]]:
    ids, mask = padded(streams, model.head_weight.device)
    cache, pieces = fresh_cache(model, len(streams)), []
    for start in range(0, ids.shape[1], piece):
        span = slice(start, start + piece)
        some = None if mask is None else mask[:, span]
        output = model(ids[:, span], cache, some, logits_to_keep=0, trace=True)
        cache = output.cache
        pieces.append(output.traces)
    for b, tokens in enumerate(streams):
        layers = ([seen[i] for seen in pieces] for i in range(len(model.blocks)))
        yield [_joined(i, parts, b, len(tokens)) for i, parts in enumerate(layers) if parts[0] is not None]


def _joined(layer: int, parts: Sequence[MemoryTrace | None], stream: int, length: int) -> StreamTrace:
    def along(name: str) -> np.ndarray | None:
        tensors = [getattr(part, name) for part in parts]
        if tensors[0] is None:
            return None
        whole = torch.cat([x[stream] for x in tensors])[:length]
        return (whole.flatten(1) if whole.ndim > 1 else whole).cpu().numpy()

    return StreamTrace(layer=layer, gate=along("gate"), slots=along("slots"), weights=along("weights"))
