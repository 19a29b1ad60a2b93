"""One domain, another, and the first again: what a memory that lives on gains, keeps and loses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int

from fwpkm.data.documents import TokenDocuments
from fwpkm.eval.ablate import carry_over, has_memory, shares_memory, silence
from fwpkm.eval.perplexity import PositionBin, bins_of, read_losses
from fwpkm.eval.result import Origin
from fwpkm.layers.checks import below_one, refuse
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.nested import unknown_name
from fwpkm.sessions.engine import flushed, fresh_cache

Phase = Literal["first", "other", "again"]
Condition = Literal["fresh", "carried", "uninterrupted", "memory_off"]
Again = Literal["continued", "repeated"]
Progress = Callable[[int, int], None]
Tokens = Int[np.ndarray, " _"]
Losses = dict[tuple[Phase, Condition], list[Float[np.ndarray, " _"]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinualSettings:
    """What is read, one after the other."""

    other: str = "python"
    """The other domain: what `fwpkm.eval.text.open_documents` takes."""
    length: int = 8192
    """Tokens of a phase."""
    samples: int = 8
    """Streams at most, each with text of its own, spread over both domains."""
    again: Again = "continued"
    """What the third phase reads of the first domain: "continued", what follows the first phase's text, or
    "repeated", the same text once more."""
    batch_size: int = 8
    """Streams that are read side by side; changes no result."""
    piece: int = 1024
    """Tokens that are read at once; changes no result."""

    def __post_init__(self) -> None:
        problems = below_one(self, "samples", "batch_size", "piece")
        if self.length < 2:
            problems.append(f"length must be at least 2, got length={self.length}")
        if self.again not in get_args(Again):
            problems.append(unknown_name("again", self.again, get_args(Again)))
        refuse("ContinualSettings", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinualCell:
    """One phase under one condition."""

    phase: Phase
    condition: Condition
    """"fresh": the memory begins with the phase. "carried": it has lived through all phases before.
    "uninterrupted": it has read the first phase, and nothing of the other domain. "memory_off": it retrieves zeros."""
    bins: tuple[PositionBin, ...]
    """Costs by position in the phase."""
    samples: tuple[float, ...]
    """Each stream's mean cost of a token in nats, in one order for all cells."""

    @property
    def nats(self) -> float:
        """Mean of -log p."""
        return float(np.mean(self.samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinualResult:
    """All cells of one model; token mixers begin every phase afresh, so only memories carry anything over."""

    origin: Origin
    settings: ContinualSettings
    cells: tuple[ContinualCell, ...]

    def cell(self, phase: Phase, condition: Condition) -> ContinualCell | None:
        """Return a cell, or None where it was not measured: without a memory there is only "fresh"."""
        found = [cell for cell in self.cells if (cell.phase, cell.condition) == (phase, condition)]
        return found[0] if found else None

    def gain(self, phase: Phase, condition: Condition) -> tuple[float, float | None] | None:
        """Return by how many nats a condition is better than a fresh memory, and the standard error over streams.

        The error is None for a single stream; all is None where a cell is missing.
        """
        own, fresh = self.cell(phase, condition), self.cell(phase, "fresh")
        if own is None or fresh is None:
            return None
        saved = np.subtract(fresh.samples, own.samples)
        error = float(saved.std(ddof=1) / np.sqrt(len(saved))) if len(saved) > 1 else None
        return float(saved.mean()), error


def measure_continual(
    model: Decoder,
    first: TokenDocuments,
    other: TokenDocuments,
    settings: ContinualSettings,
    progress: Progress | None = None,
) -> tuple[ContinualCell, ...]:
    """Let streams read a domain, another one and the first again, with memories that live on and with fresh ones.

    Args:
        model: The decoder.
        first: The domain that comes first and last.
        other: The domain between.
        settings: How much of them is read.
        progress: Told how many streams are done, and how many there are.

    Raises:
        ValueError: If no document is as long as the phases that it must give.
    """
    journeys = _journeys(first, other, settings)
    size = 1 if shares_memory(model) else settings.batch_size
    losses: Losses = {}
    for i in range(0, len(journeys), size):
        for place, nats in _travel(model.eval(), journeys[i : i + size], settings.piece):
            losses.setdefault(place, []).extend(nats)
        if progress is not None:
            progress(min(i + size, len(journeys)), len(journeys))
    return tuple(
        _cell(phase, condition, nats) for (phase, condition), nats in sorted(losses.items(), key=_order)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Journey:
    """What one stream reads."""

    first: Tokens
    other: Tokens
    again: Tokens


def _journeys(first: TokenDocuments, other: TokenDocuments, settings: ContinualSettings) -> list[_Journey]:
    L = settings.length
    continued = settings.again == "continued"
    own = _whole_runs("the first domain", first, 2 * L if continued else L, settings.samples)
    others = _whole_runs("the other domain", other, L, settings.samples)
    return [
        _Journey(first=a[:L], other=b, again=a[L:] if continued else a)
        for a, b in zip(own, others, strict=False)
    ]


def _whole_runs(what: str, documents: TokenDocuments, length: int, most: int) -> list[Tokens]:
    """Cut runs of exactly `length`, and take at most so many, evenly spread."""
    sizes = documents.lengths - 1  # without their end tokens
    starts = [
        int(begin) + at
        for begin, size in zip(documents.offsets, sizes, strict=False)
        for at in range(0, int(size) - length + 1, length)
    ]
    if not starts:
        raise ValueError(
            f"continual: {what} must hold a document of {length} tokens, got {sizes.max()} at most; lower --length"
        )
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(int))
    return [documents.slice(starts[i], starts[i] + length) for i in chosen]


@torch.no_grad()
def _travel(
    model: Decoder, journeys: Sequence[_Journey], piece: int
) -> Iterator[tuple[tuple[Phase, Condition], list[Float[np.ndarray, " _"]]]]:
    """Read all phases under all conditions; what two conditions share is read once."""

    def fresh() -> DecoderCache:
        return fresh_cache(model, len(journeys))

    def read(phase: Phase, cache: DecoderCache) -> tuple[list[Float[np.ndarray, " _"]], DecoderCache]:
        nats, after = read_losses(model, [getattr(j, phase) for j in journeys], cache, piece)
        return nats, carry_over(flushed(after), fresh())

    phases: tuple[Phase, ...] = get_args(Phase)
    nats, after_first = read("first", fresh())
    yield ("first", "fresh"), nats
    for phase in phases[1:]:
        yield (phase, "fresh"), read(phase, fresh())[0]
    if not has_memory(model):
        return
    nats, after_other = read("other", after_first)
    yield ("other", "carried"), nats
    yield ("again", "carried"), read("again", after_other)[0]
    yield ("again", "uninterrupted"), read("again", after_first)[0]
    for phase in phases:
        yield (phase, "memory_off"), read(phase, silence(fresh()))[0]


def _order(item: tuple[tuple[Phase, Condition], object]) -> tuple[int, int]:
    (phase, condition), _ = item
    return get_args(Phase).index(phase), get_args(Condition).index(condition)


def _cell(phase: Phase, condition: Condition, losses: Sequence[Float[np.ndarray, " _"]]) -> ContinualCell:
    return ContinualCell(
        phase=phase,
        condition=condition,
        bins=bins_of(losses),
        samples=tuple(float(nats.astype(np.float64).mean()) for nats in losses),
    )
