"""A domain, another and the first again: as tables and curves."""

from collections.abc import Iterator
from math import log
from typing import get_args

from fwpkm.eval.continual import Condition, ContinualResult, Phase
from fwpkm.report.numbers import span
from fwpkm.report.svg import Curve, line_chart
from fwpkm.report.table import Table

CONDITION_TITLES: dict[Condition, str] = {
    "fresh": "fresh memory",
    "carried": "memory carried on",
    "uninterrupted": "carried on, without the other domain",
    "memory_off": "memory off",
}


def continual_tables(result: ContinualResult) -> tuple[Table, Table]:
    """List costs by phase, condition and position, and what carrying the memory on was worth."""
    conditions = [c for c in get_args(Condition) if any(cell.condition == c for cell in result.cells)]
    rows = [row for phase in get_args(Phase) for row in _phase_rows(result, phase, conditions)]
    costs = Table(
        title=f"{result.origin.name}: bits per token in {_phases(result)}",
        columns=("phase, position", *(CONDITION_TITLES[c] for c in conditions)),
        rows=tuple(rows),
    )
    return costs, _gains(result)


def continual_curves(result: ContinualResult) -> Iterator[tuple[str, str]]:
    """Draw costs by position, a chart for each phase; all charts have the same height."""
    bits = [b.nats / log(2) for cell in result.cells for b in cell.bins]
    for phase in get_args(Phase):
        curves = [
            Curve(
                name=CONDITION_TITLES[cell.condition],
                x=tuple(float(b.start) for b in cell.bins),
                y=tuple(b.nats / log(2) for b in cell.bins),
            )
            for cell in result.cells
            if cell.phase == phase
        ]
        chart = line_chart(
            curves, x_title="position in the phase", y_title="bits per token", low=min(bits), high=max(bits)
        )
        yield f"{result.origin.name}: {_title(result, phase)}", chart


def _phase_rows(
    result: ContinualResult, phase: Phase, conditions: list[Condition]
) -> Iterator[tuple[str, ...]]:
    cells = {c: result.cell(phase, c) for c in conditions}
    fresh = cells["fresh"]
    assert fresh is not None, "every model is measured with a fresh memory"
    title = _title(result, phase)
    for i, place in enumerate(fresh.bins):
        shown = [f"{cell.bins[i].nats / log(2):.4f}" if cell else "" for cell in cells.values()]
        yield (f"{title}, {span(place.start, place.stop)}", *shown)
    yield (f"{title}, all", *(f"{cell.nats / log(2):.4f}" if cell else "" for cell in cells.values()))


def _gains(result: ContinualResult) -> Table:
    """Say what the memory of earlier phases saved, in bits per token, and how much of it outlived the other domain."""
    asked: tuple[tuple[str, Phase, Condition], ...] = (
        ("saved again by a memory of the first phase alone", "again", "uninterrupted"),
        ("saved again by the same memory after the other domain", "again", "carried"),
        ("saved in the other domain by a memory of the first", "other", "carried"),
    )
    rows = []
    for text, phase, condition in asked:
        gain = result.gain(phase, condition)
        if gain is not None:
            error = "" if gain[1] is None else f" ± {gain[1] / log(2):.4f}"
            rows.append((text, f"{gain[0] / log(2):+.4f}{error}"))
    before, after = result.gain("again", "uninterrupted"), result.gain("again", "carried")
    if before is not None and after is not None and before[0] > 0:
        rows.append(("share of it that was retained", f"{after[0] / before[0]:.0%}"))
    streams = len(result.cells[0].samples)
    return Table(
        title=f"{result.origin.name}: against a fresh memory, mean and standard error of {streams} streams",
        columns=("what", "bits per token"),
        rows=tuple(rows) or (("no memory to carry on", ""),),
    )


def _phases(result: ContinualResult) -> str:
    text, settings = result.origin.text, result.settings
    return f"{text}, {settings.other}, {text} {settings.again}; {settings.length:,} tokens each"


def _title(result: ContinualResult, phase: Phase) -> str:
    named = {
        "first": result.origin.text,
        "other": result.settings.other,
        "again": f"{result.origin.text} again",
    }
    return f"{get_args(Phase).index(phase) + 1}. {named[phase]}"
