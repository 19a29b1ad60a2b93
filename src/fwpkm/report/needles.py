"""Needle results as tables, heat maps and curves."""

from collections.abc import Iterator, Sequence

from fwpkm.eval.needles import NeedleCell, NeedleResult, Variant
from fwpkm.report.numbers import interval, percent
from fwpkm.report.svg import Curve, heat_map, line_chart
from fwpkm.report.table import Table

VARIANT_TITLES: dict[Variant, str] = {
    "normal": "",
    "memory_off": "memory off",
    "frozen_memory": "memory frozen",
    "wrong_document": "another document's memory",
}


def needle_tables(result: NeedleResult) -> Iterator[Table]:
    """Make a table for each variant and number of reads: lengths down, depths across."""
    for (variant, reads), cells in groups(result).items():
        depths = sorted({cell.depth for cell in cells})
        lengths = sorted({cell.length for cell in cells})
        yield Table(
            title=f"{result.origin.name}: {condition(variant, reads)}; samples with all tokens of all answers right",
            columns=(
                "tokens",
                *(f"depth {percent(d)}" for d in depths),
                "all",
                "95% interval",
                "tokens right",
            ),
            rows=tuple(_row(length, depths, cells) for length in lengths),
        )


def comparison_table(results: Sequence[NeedleResult]) -> Table:
    """Make one table of all results: lengths down, models and conditions across, all depths together."""
    named = [(r.origin.name, *key, cells) for r in results for key, cells in groups(r).items()]
    lengths = sorted({cell.length for *_, cells in named for cell in cells})
    rows = [
        (f"{length:,}", *(_share([c for c in cells if c.length == length]) for *_, cells in named))
        for length in lengths
    ]
    return Table(
        title="Samples with all tokens of all answers right, all depths together",
        columns=("tokens", *(f"{name}: {condition(variant, reads)}" for name, variant, reads, _ in named)),
        rows=tuple(rows),
    )


def needle_maps(result: NeedleResult) -> Iterator[tuple[str, str]]:
    """Draw a heat map for each variant and number of reads, with its title."""
    for (variant, reads), cells in groups(result).items():
        depths = sorted({cell.depth for cell in cells})
        lengths = sorted({cell.length for cell in cells})
        found = {(cell.depth, cell.length): cell.right / cell.samples for cell in cells}
        drawn = heat_map(
            [[found.get((depth, length)) for length in lengths] for depth in depths],
            rows=[percent(depth) for depth in depths],
            columns=[f"{length:,}" for length in lengths],
            row_title="depth",
            column_title="tokens",
        )
        yield f"{result.origin.name}: {condition(variant, reads)}", drawn


def needle_curves(results: Sequence[NeedleResult]) -> str:
    """Draw the share of right samples over the length, for all results, variants and numbers of reads."""
    curves = []
    for result in results:
        for (variant, reads), cells in groups(result).items():
            lengths = sorted({cell.length for cell in cells})
            shares = [_summed([cell for cell in cells if cell.length == length]) for length in lengths]
            curves.append(
                Curve(
                    name=f"{result.origin.name}: {condition(variant, reads)}",
                    x=tuple(float(length) for length in lengths),
                    y=tuple(right / samples for right, samples in shares),
                )
            )
    return line_chart(curves, x_title="tokens", y_title="share of samples right", low=0.0, high=1.0)


def groups(result: NeedleResult) -> dict[tuple[Variant, int], list[NeedleCell]]:
    """Sort cells by variant and number of reads, in the order of their first."""
    found: dict[tuple[Variant, int], list[NeedleCell]] = {}
    for cell in sorted(result.cells, key=lambda cell: (list(VARIANT_TITLES).index(cell.variant), cell.reads)):
        found.setdefault((cell.variant, cell.reads), []).append(cell)
    return found


def condition(variant: Variant, reads: int) -> str:
    """Say under which condition was asked."""
    often = "1 read" if reads == 1 else f"{reads} reads"
    return ", ".join(part for part in (often, VARIANT_TITLES[variant]) if part)


def _row(length: int, depths: Sequence[float], cells: Sequence[NeedleCell]) -> tuple[str, ...]:
    own = {cell.depth: cell for cell in cells if cell.length == length}
    shown = [f"{own[d].right}/{own[d].samples}" if d in own else "" for d in depths]
    right, samples = _summed(list(own.values()))
    low, high = interval(right, samples)
    tokens = sum(cell.tokens_right for cell in own.values()) / sum(cell.tokens for cell in own.values())
    return (
        f"{length:,}",
        *shown,
        f"{right}/{samples}",
        f"{percent(low)} to {percent(high)}",
        f"{tokens:.1%}",
    )


def _share(cells: Sequence[NeedleCell]) -> str:
    right, samples = _summed(cells)
    return f"{right}/{samples} ({percent(right / samples)})" if samples else ""


def _summed(cells: Sequence[NeedleCell]) -> tuple[int, int]:
    return sum(cell.right for cell in cells), sum(cell.samples for cell in cells)
