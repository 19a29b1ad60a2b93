"""Perplexity, gates and slots as tables and curves."""

from collections.abc import Sequence
from math import exp, log

from fwpkm.eval.gates import GateResult
from fwpkm.eval.perplexity import PerplexityResult
from fwpkm.eval.slots import SlotResult
from fwpkm.report.numbers import percent, span
from fwpkm.report.svg import Curve, line_chart
from fwpkm.report.table import Table


def perplexity_table(result: PerplexityResult) -> Table:
    """List losses by position, and all together."""
    rows = [
        (span(b.start, b.stop), f"{b.tokens:,}", f"{b.nats / log(2):.4f}", f"{exp(b.nats):.4g}", "")
        for b in result.bins
    ]
    tokens = sum(run.tokens for run in result.runs)
    bits = f"{result.nats / log(2):.4f}"
    rows.append(("all", f"{tokens:,}", bits, f"{exp(result.nats):.4g}", f"{result.bits_per_byte:.4f}"))
    return Table(
        title=f"{_named(result)}: {len(result.runs)} runs of {result.settings.length:,} tokens at most",
        columns=("position", "tokens", "bits per token", "perplexity", "bits per byte"),
        rows=tuple(rows),
    )


def perplexity_comparison(results: Sequence[PerplexityResult]) -> Table:
    """Make one table of the losses of several models that read the same, by position."""
    spans = sorted({(b.start, b.stop) for result in results for b in result.bins})
    bits = [{(b.start, b.stop): f"{b.nats / log(2):.4f}" for b in result.bins} for result in results]
    rows = [(span(*place), *(own.get(place, "") for own in bits)) for place in spans]
    rows.append(("bits per byte, all", *(f"{result.bits_per_byte:.4f}" for result in results)))
    return Table(
        title="Bits per token, by position",
        columns=("position", *(_named(result) for result in results)),
        rows=tuple(rows),
    )


def perplexity_curves(results: Sequence[PerplexityResult]) -> str:
    """Draw losses by position, a curve for each result."""
    curves = [
        Curve(
            name=_named(result),
            x=tuple(float(b.start) for b in result.bins),
            y=tuple(b.nats / log(2) for b in result.bins),
        )
        for result in results
    ]
    return line_chart(curves, x_title="position in the run", y_title="bits per token")


def gate_table(result: GateResult) -> Table:
    """List how far gates are open, by layer and kind of token."""
    settings = result.settings
    rows = [
        (
            f"layer {cell.layer}, {cell.kind}",
            f"{cell.tokens:,}",
            f"{cell.mean:.3f}",
            f"{cell.std:.3f}",
            percent(cell.histogram[0]),
            percent(cell.histogram[-1]),
        )
        for cell in result.cells
    ]
    return Table(
        title=f"{result.origin.name}: gates in {settings.samples} documents of {settings.length:,} tokens",
        columns=("tokens of", "tokens", "mean", "spread", "below 0.1", "0.9 and above"),
        rows=tuple(rows),
    )


def gate_curves(result: GateResult) -> str:
    """Draw each layer's mean gate by position."""
    layers = sorted({position.layer for position in result.positions})
    curves = []
    for layer in layers:
        own = [position for position in result.positions if position.layer == layer]
        curves.append(
            Curve(
                name=f"{result.origin.name}: layer {layer}",
                x=tuple(float(position.start) for position in own),
                y=tuple(position.mean for position in own),
            )
        )
    return line_chart(curves, x_title="position in the document", y_title="mean gate", low=0.0, high=1.0)


def slot_table(result: SlotResult) -> Table:
    """List how each layer uses its slots."""
    settings = result.settings
    rows = [
        (
            f"{layer.layer}",
            f"{layer.num_slots:,}",
            f"{layer.growth[-1].slots:,.0f}",
            percent(layer.used),
            percent(layer.collisions),
            f"{layer.divergence:.2f}",
            percent(layer.unwritten),
            "" if layer.median_age is None else f"{layer.median_age:,.0f}",
        )
        for layer in result.layers
    ]
    return Table(
        title=f"{result.origin.name}: slots in up to {settings.max_runs} runs of {settings.length:,} tokens",
        columns=(
            "layer",
            "slots",
            "read",
            "of possible",
            "collisions",
            "divergence",
            "unwritten",
            "median age",
        ),
        rows=tuple(rows),
    )


def slot_curves(result: SlotResult) -> tuple[str, str]:
    """Draw how many slots are in use by length, and how old what is read is."""
    growth = [
        Curve(
            name=f"{result.origin.name}: layer {layer.layer}",
            x=tuple(float(g.tokens) for g in layer.growth),
            y=tuple(g.slots / layer.num_slots for g in layer.growth),
        )
        for layer in result.layers
    ]
    ages = [
        Curve(
            name=f"{result.origin.name}: layer {layer.layer}",
            x=tuple(float(age.start) for age in layer.ages),
            y=tuple(age.share for age in layer.ages),
        )
        for layer in result.layers
    ]
    return (
        line_chart(growth, x_title="tokens", y_title="share of slots read so far", low=0.0, high=1.0),
        line_chart(ages, x_title="age in tokens", y_title="share of reads", low=0.0),
    )


def _named(result: PerplexityResult) -> str:
    mode = result.settings.memory
    return result.origin.name if mode == "normal" else f"{result.origin.name}, {mode.replace('_', ' ')}"
