"""Small results of every kind, made up: for tests of files and pages."""

from fwpkm.eval.continual import Condition, ContinualCell, ContinualResult, ContinualSettings, Phase
from fwpkm.eval.files import Result
from fwpkm.eval.gates import GateCell, GatePosition, GateResult, GateSettings
from fwpkm.eval.needles import NeedleCell, NeedleResult, NeedleSettings, Variant
from fwpkm.eval.perplexity import PerplexityResult, PerplexitySettings, PositionBin, RunLoss
from fwpkm.eval.result import Origin
from fwpkm.eval.slots import AgeBin, Growth, SlotLayer, SlotResult, SlotSettings
from fwpkm.nested import from_mapping


def make_origin(name: str = "tiny") -> Origin:
    """Say that somebody measured something."""
    facts = ("checkpoint", "text", "tokenizer", "command", "device", "threads", "torch", "backend", "python")
    named = {fact: f"some {fact}" for fact in (*facts, "fwpkm", "commit", "date")}
    return from_mapping(Origin, {"name": name, "num_parameters": 1234, "memory_layers": [0, 2], **named})


def make_needles(name: str = "tiny", *, variants: tuple[Variant, ...] = ("normal",)) -> NeedleResult:
    """Make two lengths, two depths and two numbers of reads."""
    settings = NeedleSettings(lengths=(512, 2048), depths=(0.0, 1.0), samples=4)
    cells = [
        NeedleCell(
            variant=variant, length=length, depth=depth, reads=reads, samples=4, right=reads + int(depth),
            tokens=28, tokens_right=20, nats=0.5,
        )
        for variant in variants
        for reads in (1, 2)
        for length in settings.lengths
        for depth in settings.depths
    ]  # fmt: skip
    return NeedleResult(origin=make_origin(name), settings=settings, cells=tuple(cells))


def make_perplexity(name: str = "tiny") -> PerplexityResult:
    """Make two bins and one run."""
    return PerplexityResult(
        origin=make_origin(name),
        settings=PerplexitySettings(length=4),
        bins=(
            PositionBin(start=1, stop=2, tokens=1, nats=2.0),
            PositionBin(start=2, stop=4, tokens=2, nats=1.5),
        ),
        runs=(RunLoss(name="run", tokens=3, num_bytes=6, nats=5 / 3),),
    )


def make_gates(name: str = "tiny") -> GateResult:
    """Make one layer."""
    histogram = (0.5, *(0.0,) * 8, 0.5)
    return GateResult(
        origin=make_origin(name),
        settings=GateSettings(),
        cells=(GateCell(layer=1, kind="text", tokens=10, mean=0.5, std=0.25, histogram=histogram),),
        positions=(GatePosition(layer=1, start=0, stop=1, tokens=10, mean=0.5),),
    )


def make_slots(name: str = "tiny") -> SlotResult:
    """Make a layer that wrote, and one that did not."""
    growth = (Growth(tokens=1, slots=2.0), Growth(tokens=8, slots=9.5))
    layers = [
        SlotLayer(
            layer=layer, num_slots=64, reads=16, used=0.5, collisions=0.25, divergence=1.5,
            unwritten=0.75 if ages else 1.0, median_age=6.0 if ages else None, growth=growth, ages=ages,
        )
        for layer, ages in ((0, (AgeBin(start=4, stop=8, share=0.25),)), (2, ()))
    ]  # fmt: skip
    return SlotResult(origin=make_origin(name), settings=SlotSettings(), layers=tuple(layers))


def make_continual(name: str = "tiny") -> ContinualResult:
    """Make all phases with a fresh memory, and the last with one that lived on."""
    places: list[tuple[Phase, Condition]] = [
        ("first", "fresh"),
        ("other", "fresh"),
        ("again", "fresh"),
        ("again", "carried"),
    ]
    cells = [
        ContinualCell(
            phase=phase,
            condition=condition,
            bins=(PositionBin(start=1, stop=4, tokens=6, nats=1.5 - i / 8),),
            samples=(1.0 - i / 8, 2.0 - i / 8),
        )
        for i, (phase, condition) in enumerate(places)
    ]
    return ContinualResult(origin=make_origin(name), settings=ContinualSettings(length=4), cells=tuple(cells))


def make_results(name: str = "tiny") -> list[Result]:
    """Make one of every kind."""
    return [
        make_needles(name),
        make_perplexity(name),
        make_gates(name),
        make_slots(name),
        make_continual(name),
    ]
