"""How far gates open: on prose, on needles, on questions and answers, and by position."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from fwpkm.data.needles import NeedleMaker, NeedleSample
from fwpkm.data.shuffle import mix
from fwpkm.eval.positions import bin_of, octaves
from fwpkm.eval.result import Origin
from fwpkm.eval.traces import trace_streams
from fwpkm.layers.checks import below_one, refuse
from fwpkm.models.decoder import Decoder

Kind = Literal["text", "needle", "question", "answer"]
KINDS: tuple[Kind, ...] = ("text", "needle", "question", "answer")
NUM_LEVELS = 10
"""Bars of a histogram of gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What is read."""

    form: str = "paper"
    """Which needles stand in the text (`fwpkm.data.needles.NEEDLE_FORMS`)."""
    length: int = 4096
    """Tokens of a document."""
    samples: int = 8
    """Documents."""
    seed: int = 0
    """Decides them."""
    batch_size: int = 8
    """Documents that are read side by side; changes no result."""

    def __post_init__(self) -> None:
        refuse("GateSettings", below_one(self, "length", "samples", "batch_size"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCell:
    """Gates of one layer on tokens of one kind."""

    layer: int
    kind: Kind
    tokens: int
    mean: float
    std: float
    histogram: tuple[float, ...]
    """Share of gates in [0, 0.1), [0.1, 0.2), ... [0.9, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePosition:
    """Gates of one layer on tokens with start <= position < stop."""

    layer: int
    start: int
    stop: int
    tokens: int
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Gates of one model."""

    origin: Origin
    settings: GateSettings
    cells: tuple[GateCell, ...]
    positions: tuple[GatePosition, ...]


def measure_gates(
    model: Decoder, maker: NeedleMaker, settings: GateSettings
) -> tuple[tuple[GateCell, ...], tuple[GatePosition, ...]]:
    """Let a model read documents with needles, questions and answers, and look at its gates.

    Raises:
        ValueError: If the model has no memory with a gate.
    """
    samples = _samples(maker, settings)
    gates: dict[int, list[Float[np.ndarray, " _"]]] = defaultdict(list)
    traced = trace_streams(model, [s.tokens for s in samples], batch_size=settings.batch_size)
    for layers in traced:
        for trace in layers:
            if trace.gate is not None:
                gates[trace.layer].append(trace.gate.astype(np.float64))
    if not gates:
        raise ValueError("gates: no memory of the model has a gate")
    kinds = np.concatenate([token_kinds(sample) for sample in samples])
    places = np.concatenate([np.arange(len(sample.tokens)) for sample in samples])
    joined = {layer: np.concatenate(parts) for layer, parts in gates.items()}
    cells = [cell for layer, own in joined.items() for cell in _cells(layer, own, kinds)]
    return tuple(cells), tuple(p for layer, own in joined.items() for p in _positions(layer, own, places))


def token_kinds(sample: NeedleSample) -> Int[np.ndarray, " T"]:
    """Return for each of `sample.tokens` what it belongs to, as its place in KINDS."""
    kinds = np.full(len(sample.tokens), KINDS.index("question"))
    kinds[: len(sample.context)] = KINDS.index("text")
    for needle in sample.needles:
        kinds[needle.start : needle.stop] = KINDS.index("needle")
    for start, stop in sample.answer_spans:
        kinds[start:stop] = KINDS.index("answer")
    return kinds


def _samples(maker: NeedleMaker, settings: GateSettings) -> list[NeedleSample]:
    seeds = [mix(settings.seed, i) for i in range(settings.samples)]
    depths = np.linspace(0, 1, settings.samples)
    return [
        maker.sample(length=settings.length, depth=float(depth), seed=seed)
        for depth, seed in zip(depths, seeds, strict=True)
    ]


def _cells(layer: int, gates: Float[np.ndarray, " T"], kinds: Int[np.ndarray, " T"]) -> Iterator[GateCell]:
    for i, kind in enumerate(KINDS):
        own = gates[kinds == i]
        if not len(own):
            continue
        counts, _ = np.histogram(own, bins=NUM_LEVELS, range=(0, 1))
        yield GateCell(
            layer=layer,
            kind=kind,
            tokens=len(own),
            mean=float(own.mean()),
            std=float(own.std()),
            histogram=tuple(_shares(counts)),
        )


def _positions(
    layer: int, gates: Float[np.ndarray, " T"], places: Int[np.ndarray, " T"]
) -> Iterator[GatePosition]:
    borders = octaves(int(places.max()) + 1)
    which = bin_of(places, borders)
    for i in range(len(borders) - 1):
        own = gates[which == i]
        if len(own):
            yield GatePosition(
                layer=layer,
                start=int(borders[i]),
                stop=int(borders[i + 1]),
                tokens=len(own),
                mean=float(own.mean()),
            )


def _shares(counts: Sequence[int] | Int[np.ndarray, " _"]) -> list[float]:
    total = max(1, int(np.sum(counts)))
    return [float(count) / total for count in counts]
