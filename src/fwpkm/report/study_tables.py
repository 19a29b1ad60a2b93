"""A study's tables: systems down, several seeds in a cell."""

from collections.abc import Iterator, Sequence
from math import log

from fwpkm.report.needles import condition
from fwpkm.report.numbers import percent, span
from fwpkm.report.table import Table
from fwpkm.study.results import Condition, Reading, StudyResults, SystemResults
from fwpkm.study.spread import Spread

_LN2 = log(2)


def budget_table(results: StudyResults) -> Table:
    """List what every system is and what its training took."""
    first = results.systems[0].system.parameters
    return Table(
        title="Systems and budgets; mean ± standard deviation over the seeds whose training is finished",
        columns=(
            "system",
            "recipe",
            "parameters",
            "of the first",
            "tokens",
            "steps",
            "minutes",
            "tokens/s",
            "validation, bits per token",
            "seeds",
        ),
        rows=tuple(_budget_row(own, first) for own in results.systems),
    )


def _budget_row(own: SystemResults, first: int) -> tuple[str, ...]:
    speed = own.over_seeds(lambda t: t.tokens / t.seconds if t.seconds else None)
    return (
        own.system.label,
        own.system.config.recipe,
        f"{own.system.parameters:,}",
        f"{own.system.parameters / first:.1%}",
        shown(own.over_seeds(lambda t: t.tokens), "{:,.0f}"),
        shown(own.over_seeds(lambda t: t.steps), "{:,.0f}"),
        shown(own.over_seeds(lambda t: t.seconds / 60), "{:.2f}"),
        shown(speed, "{:,.0f}"),
        shown(own.over_seeds(lambda t: None if t.validation is None else t.validation / _LN2), "{:.4f}"),
        _states(own),
    )


def _states(own: SystemResults) -> str:
    counts = {state: own.states.count(state) for state in dict.fromkeys(own.states)}
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def needle_tables(results: StudyResults) -> Iterator[Table]:
    """Make a table for every way of asking: systems down, lengths across."""
    lengths = lengths_of(results)
    for asked in conditions_of(results):
        rows = [
            (reading.name, *(as_percent(reading.needle_share(asked, length)) for length in lengths))
            for reading in results.readings
            if asked in reading.conditions()
        ]
        yield Table(
            title=f"Needles, {condition(*asked)}: samples with all tokens of all answers right, all depths together",
            columns=("system", *(f"{length:,} tokens" for length in lengths)),
            rows=tuple(rows),
        )


def perplexity_tables(results: StudyResults) -> Iterator[Table]:
    """Make a table for every memory mode: systems down, positions across."""
    for mode in modes_of(results):
        readings = [reading for reading in results.readings if mode in reading.perplexity]
        places = places_of(readings, mode)
        rows = [
            (
                reading.name,
                *(shown(in_bits(reading.nats(mode, place)), "{:.3f}") for place in places),
                shown(reading.bits_per_byte(mode), "{:.4f}"),
            )
            for reading in readings
        ]
        yield Table(
            title=f"Bits per token by position{_mode_title(mode)}",
            columns=("system", *(span(*place) for place in places), "bits per byte, all"),
            rows=tuple(rows),
        )


def failure_table(results: StudyResults) -> Table:
    """List what ended badly, and why."""
    rows = [(f"{f.system}, seed {f.seed}", f.task, f.reason) for f in results.failures]
    return Table(title="What failed", columns=("system", "task", "reason"), rows=tuple(rows))


def shown(spread: Spread | None, form: str) -> str:
    """Write mean and spread, or the one value there is; nothing where there is none."""
    if spread is None:
        return ""
    if spread.std is None or spread.low == spread.high:
        return form.format(spread.mean)
    return f"{form.format(spread.mean)} ± {form.format(spread.std)}"


def as_percent(spread: Spread | None) -> str:
    """Write shares as percents."""
    if spread is None:
        return ""
    if spread.std is None:
        return percent(spread.mean)
    return f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f}%"


def in_bits(nats: Spread | None) -> Spread | None:
    """Turn nats into bits."""
    return None if nats is None else Spread.of(value / _LN2 for value in nats.values)


def conditions_of(results: StudyResults) -> list[Condition]:
    """List all ways in which needles were asked for: the model as it is before ablations."""
    found = dict.fromkeys(asked for reading in results.readings for asked in reading.conditions())
    return sorted(found, key=lambda asked: asked[0] != "normal")


def lengths_of(results: StudyResults) -> list[int]:
    """List all lengths of documents with needles."""
    return sorted({cell.length for reading in results.readings for own in reading.needles for cell in own})


def modes_of(results: StudyResults) -> list[str]:
    """List all memory modes of perplexity."""
    return list(dict.fromkeys(mode for reading in results.readings for mode in reading.perplexity))


def places_of(readings: Sequence[Reading], mode: str) -> list[tuple[int, int]]:
    """List all bins of positions."""
    return sorted(
        {(b.start, b.stop) for r in readings for result in r.perplexity.get(mode, ()) for b in result.bins}
    )


def _mode_title(mode: str) -> str:
    return "" if mode == "normal" else f", {mode.replace('_', ' ')}"
