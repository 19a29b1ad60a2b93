"""Which slots a memory uses: how many, how evenly, who else rewrites them, and how old what they hold is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from fwpkm.data.documents import TokenDocuments
from fwpkm.eval.perplexity import cut_runs
from fwpkm.eval.positions import bin_of, octaves
from fwpkm.eval.result import Origin
from fwpkm.eval.slot_use import distinct_so_far, read_ages
from fwpkm.eval.traces import StreamTrace, trace_streams
from fwpkm.layers.checks import below_one, refuse
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.models.decoder import Decoder
from fwpkm.train.monitor import collisions, divergence, slots_used


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSettings:
    """What is read."""

    length: int = 16384
    """Tokens of a run; every run begins with a fresh memory."""
    max_runs: int = 4
    """How many runs to read at most."""
    batch_size: int = 4
    """Runs that are read side by side; changes no result."""

    def __post_init__(self) -> None:
        problems = below_one(self, "max_runs", "batch_size")
        if self.length < 2:
            problems.append(f"length must be at least 2, got length={self.length}")
        refuse("SlotSettings", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How many slots a stream has used after so many tokens, on average."""

    tokens: int
    slots: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeBin:
    """Share of the reads that find what was put there start <= age < stop tokens ago."""

    start: int
    stop: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLayer:
    """One layer."""

    layer: int
    num_slots: int
    reads: int
    """Slots read by all tokens of all runs."""
    used: float
    """A run's distinct slots over its reads or all slots, whichever are fewer."""
    collisions: float
    """Share of reads whose slot another token of the same chunk reads too."""
    divergence: float
    """Of all reads from uniform use, in nats; 0 is even."""
    unwritten: float
    """Share of reads that find a slot as it was at the beginning."""
    median_age: float | None
    """Tokens since the slots that were written got what is read there; None if none was."""
    growth: tuple[Growth, ...]
    ages: tuple[AgeBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotResult:
    """Slots of one model."""

    origin: Origin
    settings: SlotSettings
    layers: tuple[SlotLayer, ...]


def measure_slots(model: Decoder, documents: TokenDocuments, settings: SlotSettings) -> tuple[SlotLayer, ...]:
    """Let a model read runs of text, and look at which slots its memories read and write.

    Raises:
        ValueError: If there is nothing to read, or no memory of the model has slots.
    """
    runs = [run.tokens for run in cut_runs(documents, settings.length, settings.max_runs)]
    by_layer: dict[int, list[StreamTrace]] = {}
    for traces in trace_streams(model, runs, batch_size=settings.batch_size):
        for trace in traces:
            if trace.slots is not None:
                by_layer.setdefault(trace.layer, []).append(trace)
    if not by_layer:
        raise ValueError("slots: no memory of the model has slots; give one with FwPKM layers")
    return tuple(_layer(_memory(model, layer), own) for layer, own in by_layer.items())


def _memory(model: Decoder, layer: int) -> FwPKM:
    memory = model.blocks[layer].memory
    assert isinstance(memory, FwPKM), "nothing else has slots"
    return memory


def _layer(memory: FwPKM, traces: Sequence[StreamTrace]) -> SlotLayer:
    config = memory.config
    slots, weights = _side_by_side(traces)
    ages = np.concatenate([_ages(memory, trace) for trace in traces])
    known = ages[ages >= 0]
    return SlotLayer(
        layer=traces[0].layer,
        num_slots=config.num_slots,
        reads=int((slots >= 0).sum()),
        used=slots_used(slots, config.num_slots),
        collisions=collisions(slots, config.chunk_size),
        divergence=divergence(slots, weights, config.num_slots),
        unwritten=float((ages < 0).mean()),
        median_age=float(np.median(known)) if len(known) else None,
        growth=_growth(traces),
        ages=_age_bins(known, len(ages)),
    )


def _side_by_side(traces: Sequence[StreamTrace]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put runs of different lengths into one tensor each, -1 behind the shorter ones."""
    longest = max(len(_slots(trace)) for trace in traces)
    slots = torch.full((len(traces), longest, _slots(traces[0]).shape[1]), -1)
    weights = torch.zeros(slots.shape)
    for b, trace in enumerate(traces):
        assert trace.weights is not None, "slots come with weights"
        slots[b, : len(_slots(trace))] = torch.from_numpy(_slots(trace))
        weights[b, : len(_slots(trace))] = torch.from_numpy(trace.weights).float()
    return slots, weights


def _ages(memory: FwPKM, trace: StreamTrace) -> Int[np.ndarray, " R"]:
    config = memory.config
    ahead = config.lookahead if config.border == "moved" else 0
    ages = read_ages(_slots(trace), num_slots=config.num_slots, chunk_size=config.chunk_size, lookahead=ahead)
    return ages.ravel()


def _growth(traces: Sequence[StreamTrace]) -> tuple[Growth, ...]:
    shortest = min(len(_slots(trace)) for trace in traces)
    marks = octaves(shortest)[1:]
    counts = np.mean([distinct_so_far(_slots(trace), marks) for trace in traces], axis=0)
    return tuple(Growth(tokens=int(t), slots=float(n)) for t, n in zip(marks, counts, strict=True))


def _age_bins(known: Int[np.ndarray, " R"], total: int) -> tuple[AgeBin, ...]:
    if not len(known):
        return ()
    borders = octaves(int(known.max()) + 1)
    counts = np.bincount(bin_of(known, borders), minlength=len(borders) - 1)
    return tuple(
        AgeBin(start=int(borders[i]), stop=int(borders[i + 1]), share=float(n) / total)
        for i, n in enumerate(counts)
        if n
    )


def _slots(trace: StreamTrace) -> Int[np.ndarray, "T J"]:
    assert trace.slots is not None, "kept only where there are slots"
    return trace.slots
