"""What a memory did for each token: how far its gate was open, and which slots were read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.memory.fast_mlp import FastMLPState
from fwpkm.memory.state import FwPKMState
from fwpkm.memory.tokens import Tokens
from fwpkm.ops.addressing import address
from fwpkm.ops.compiling import uncompiled
from fwpkm.ops.core.weights import read_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryTrace:
    """One memory during one call, without a graph."""

    gate: Float[Tensor, "B T"] | None
    """How much of the answer was retrieved; None for a layer without a gate."""
    slots: Int[Tensor, "B T H k"] | None
    """Slots read, best first; -1 at padding; None for a memory without slots."""
    weights: Float[Tensor, "B T H k"] | None
    """Their read weights; 0 at padding."""


@uncompiled
@torch.no_grad()
def trace_memory(
    memory: FwPKM | FastWeightMLP,
    h: Float[Tensor, "B T D"],
    state: FwPKMState | FastMLPState | None,
    mask: Bool[Tensor, "B T"] | None,
    write_mask: Bool[Tensor, "B T"] | None = None,
) -> MemoryTrace:
    """Do what `memory(h, state, mask, write_mask=write_mask)` does once more, and note what it reads."""
    if isinstance(memory, FastWeightMLP):
        return MemoryTrace(gate=memory.project(h)[2], slots=None, weights=None)
    state = memory.initial_state(h.shape[0]) if state is None else state
    assert isinstance(state, FwPKMState), "the layer has accepted it"
    state = replace(state, temperature=memory.temperature.to(state.keys.dtype))
    q, v, gate = memory.project(h)
    loss_weight = gate if memory.config.gate_weighted_loss else None
    if state.is_shared and mask is not None:
        write_mask = mask if write_mask is None else mask & write_mask
    slots = torch.full((*q.shape[:3], memory.config.topk), -1, device=q.device)
    weights = q.new_zeros(slots.shape)
    for streams, places in _groups(state, mask, h):
        at = (streams[:, None], places)
        x = Tokens(
            q=q[at],
            v=v[at],
            gate=None if loss_weight is None else loss_weight[at],
            write_mask=None if write_mask is None else write_mask[at].to(v.dtype),
        )
        own = state if len(streams) == state.num_streams else state.select(streams)
        with torch.autocast(h.device.type, enabled=False):  # as in the layer
            slots[at], weights[at] = _reads(own, x)
    return MemoryTrace(gate=gate, slots=slots, weights=weights)


def _groups(
    state: FwPKMState, mask: Tensor | None, h: Tensor
) -> Iterator[tuple[Int[Tensor, " K"], Int[Tensor, "K t"]]]:
    """Yield streams whose chunks end together, and where their tokens are that the memory sees."""
    B, T, _ = h.shape
    streams, places = torch.arange(B, device=h.device), torch.arange(T, device=h.device)
    if state.is_shared or (mask is None and len(set(state.waiting.counts)) == 1):
        yield streams, places.expand(B, T)
        return
    for b in range(B):
        yield streams[b : b + 1], places[None] if mask is None else places[mask[b]][None]


def _reads(state: FwPKMState, x: Tokens) -> tuple[Int[Tensor, "K t H k"], Float[Tensor, "K t H k"]]:
    """Go from write to write, and address with the sub-keys that hold in between."""
    reads, start, T = [_address(state, x.q[:, :0])], 0, x.num_tokens
    while start < T:
        part = x[start : start + _tokens_to_write(state)]
        reads.append(_address(state, part.q))
        learned = None if part.write_mask is None else part.write_mask > 0
        _, state = state.advance(part.q, part.v, part.gate, write_mask=learned)
        start += part.num_tokens
    slots, weights = zip(*reads, strict=True)
    return torch.cat(slots, dim=1), torch.cat(weights, dim=1)


def _tokens_to_write(state: FwPKMState) -> int:
    options = state.options
    known = options.chunk_size + (options.lookahead if options.border == "moved" else 0)
    return known - state.waiting.counts[0]


def _address(
    state: FwPKMState, q: Float[Tensor, "K t H Dk"]
) -> tuple[Int[Tensor, "K t H k"], Float[Tensor, "K t H k"]]:
    K, t, H, Dk = q.shape
    shape = (K, t, H, state.options.topk)
    by_table = q.reshape(1, K * t, H, Dk) if state.is_shared else q
    score, slot, _ = address(by_table, state.keys, topk=state.options.topk, score=state.options.score)
    flat = score.reshape(K * t, H * state.options.topk)
    w = read_weights(flat, state.options.weights, state.temperature)
    return slot.reshape(shape), w.reshape(shape)
