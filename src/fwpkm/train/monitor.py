"""What the memories do: gates, and how evenly and how often slots are used."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.models.decoder import Decoder
from fwpkm.models.trace import MemoryTrace


def memory_metrics(
    model: Decoder, traces: tuple[MemoryTrace | None, ...], mask: Bool[Tensor, "B T"] | None = None
) -> dict[str, float]:
    """Name and measure what each layer's memory did in one forward pass; `mask` is false at padding.

    `memory.<layer>.gate` is the gate's mean, `.gate_spread` its standard deviation over tokens; `.slots_used` the
    distinct slots that a stream read, as a share of its reads or of all slots, whichever is fewer; `.collisions` the
    share of reads whose slot another token of the same chunk reads too; `.divergence` that of all reads from
    uniform use of all slots, in nats (0: uniform; log N: one slot).
    """
    return {
        f"memory.{layer}.{name}": value
        for layer, trace in enumerate(traces)
        if trace is not None
        for name, value in _one(model.blocks[layer].memory, trace, mask)
    }


def _one(memory: object, trace: MemoryTrace, mask: Tensor | None) -> Iterator[tuple[str, float]]:
    gate = trace.gate if trace.gate is None or mask is None else trace.gate[mask]
    if gate is not None and gate.numel():
        yield "gate", float(gate.float().mean())
        yield "gate_spread", float(gate.float().std(unbiased=False))
    if isinstance(memory, FwPKM) and trace.slots is not None and trace.weights is not None:
        assert isinstance(memory, FwPKM)
        slots, num_slots = trace.slots.flatten(2), memory.config.num_slots
        yield "slots_used", slots_used(slots, num_slots)
        yield "collisions", collisions(slots, memory.config.chunk_size)
        yield "divergence", divergence(slots, trace.weights.flatten(2), num_slots)


def slots_used(slots: Int[Tensor, "B T J"], num_slots: int) -> float:
    """Return a stream's distinct slots over its reads or all slots, whichever are fewer; -1 is no read."""
    shares = []
    for stream in slots:
        real = stream[stream >= 0]
        if real.numel():
            shares.append(real.unique().numel() / min(real.numel(), num_slots))
    return sum(shares) / len(shares) if shares else 0.0


def collisions(slots: Int[Tensor, "B T J"], chunk_size: int) -> float:
    """Return the share of reads whose slot another token of the same stream and chunk reads too."""
    shared, total = 0, 0
    for stream in slots:
        for chunk in stream.split(chunk_size):
            token, read = (chunk >= 0).nonzero(as_tuple=True)
            _, slot = chunk[token, read].unique(return_inverse=True)
            pairs = torch.stack([token, slot]).unique(dim=1)  # heads of one token may read the same slot
            shared += int((pairs[1].bincount()[slot] > 1).sum())
            total += slot.numel()
    return shared / total if total else 0.0


def divergence(slots: Int[Tensor, "B T J"], weights: Float[Tensor, "B T J"], num_slots: int) -> float:
    """Return  KL(use of slots | uniform)  in nats, use being the sum of read weights of all streams."""
    real = slots >= 0
    use = torch.zeros(num_slots, dtype=torch.float64, device=slots.device)
    use.index_add_(0, slots[real].long(), weights[real].double().abs())
    p = use[use > 0] / use.sum()
    return float((p * (p * num_slots).log()).sum()) if p.numel() else 0.0
