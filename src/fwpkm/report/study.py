"""A study's page: curves with bands over seeds, heat maps, tables, and the commands that made them."""

from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from fwpkm.report.figures import Figure, write_svg
from fwpkm.report.page import figure, html_page, write_page
from fwpkm.report.study_figures import StudyFigures, draw_study
from fwpkm.report.study_tables import (
    budget_table,
    failure_table,
    needle_tables,
    perplexity_tables,
    places_of,
)
from fwpkm.report.table import Table
from fwpkm.study.results import MACHINE, Reading, StudyResults, SystemResults


def write_study_report(path: Path, results: StudyResults, command: str) -> None:
    """Write the page of `make_study_page` to a file, whole or not at all, and its figures into `figures` beside it."""
    figures = draw_study(results)
    write_page(path, _page(results, figures, command))
    for drawn in (*figures.training, *figures.needles, *figures.depths, *figures.perplexity):
        write_svg(path.parent / "figures" / f"{drawn.name}.svg", drawn.svg)


def make_study_page(results: StudyResults, command: str) -> str:
    """Return a study as one page that needs nothing from elsewhere.

    Args:
        results: What there is.
        command: The command line that made it.
    """
    return _page(results, draw_study(results), command)


def _page(results: StudyResults, figures: StudyFigures, command: str) -> str:
    title = results.plan.recipe.title or results.plan.recipe.name
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(note)}</p>" for note in notes(results))]
    body += [_wide(budget_table(results)), *_failures(results), *_losses(figures)]
    body += [*_needles(results, figures), *_perplexity(results, figures), *_origins(results, command)]
    return html_page(title, body)


def notes(results: StudyResults) -> Iterator[str]:
    """Say what was done, and what is missing."""
    config = results.plan.config
    yield (
        f"{len(results.systems)} systems, each trained on {config.tokens:,} tokens with the seeds "
        f"{', '.join(map(str, config.seeds))}, and measured on {config.text!r}. Cells are means over seeds, ± their "
        "standard deviation; bands reach from the lowest to the highest seed."
    )
    missing = [task for task in results.tasks if task.state in ("to do", "begun")]
    if missing:
        yield f"{len(missing)} of {len(results.tasks)} tasks are not done; what they would give is left out."


def _failures(results: StudyResults) -> Iterator[str]:
    if results.failures:
        yield "<h2>Failures</h2>"
        yield failure_table(results).to_html()


def _losses(figures: StudyFigures) -> Iterator[str]:
    if figures.training:
        yield "<h2>Training</h2>"
        yield from map(_shown, figures.training)


def _needles(results: StudyResults, figures: StudyFigures) -> Iterator[str]:
    if figures.needles:
        yield "<h2>Needles in a haystack</h2>"
        yield from map(_shown, figures.needles)
        yield from map(_wide, needle_tables(results))
        yield "<h2>Needles by depth</h2>"
        yield from map(_shown, figures.depths)


def _perplexity(results: StudyResults, figures: StudyFigures) -> Iterator[str]:
    if figures.perplexity:
        yield "<h2>Perplexity by position</h2>"
        yield from map(_shown, figures.perplexity)
        yield from map(_wide, perplexity_tables(results))


def _shown(drawn: Figure) -> str:
    return figure(drawn.title, drawn.svg)


def _origins(results: StudyResults, command: str) -> Iterator[str]:
    yield "<h2>How this was made</h2>"
    if results.machines:
        yield _wide(Table(title="Where results were made", columns=MACHINE, rows=results.machines))
    yield f"<p>All of it, and again what is missing of it:</p><pre>{escape(command)}</pre>"
    lines = "\n".join(escape(task.command) for task in results.tasks)
    yield f"<p>What that runs, task by task; each can be repeated by itself:</p><pre>{lines}</pre>"


def _wide(table: Table) -> str:
    return f'<div class="wide">{table.to_html()}</div>'


def study_json(results: StudyResults, command: str) -> dict[str, Any]:
    """Return a study's numbers, each seed's and their means and spreads, for a JSON file."""
    return {
        "format": "fwpkm study",
        "version": 1,
        "title": results.plan.recipe.title,
        "command": command,
        "tokens": results.plan.config.tokens,
        "seeds": list(results.plan.config.seeds),
        "machines": [dict(zip(MACHINE, machine, strict=True)) for machine in results.machines],
        "systems": [_system_json(own) for own in results.systems],
        "failures": [asdict(failure) for failure in results.failures],
    }


def _system_json(own: SystemResults) -> dict[str, Any]:
    return {
        "label": own.system.label,
        "recipe": own.system.config.recipe,
        "folder": own.system.slug,
        "parameters": own.system.parameters,
        "trainings": [
            {
                "seed": t.seed,
                "finished": t.finished,
                "diverged": t.diverged,
                "steps": t.steps,
                "tokens": t.tokens,
                "seconds": t.seconds,
                "validation_nats": t.validation,
            }
            for t in own.trainings
        ],
        "readings": [_reading_json(reading) for reading in own.readings],
    }


def _reading_json(reading: Reading) -> dict[str, Any]:
    lengths = sorted({cell.length for own in reading.needles for cell in own})
    needles = [
        {"variant": asked[0], "reads": asked[1], "length": length, **share.plain()}
        for asked in reading.conditions()
        for length in lengths
        if (share := reading.needle_share(asked, length)) is not None
    ]
    perplexity = [
        {"memory": mode, "start": place[0], "stop": place[1], "nats": nats.plain()}
        for mode in reading.perplexity
        for place in places_of([reading], mode)
        if (nats := reading.nats(mode, place)) is not None
    ]
    bits = {m: b.plain() for m in reading.perplexity if (b := reading.bits_per_byte(m)) is not None}
    return {"name": reading.name, "needles": needles, "perplexity": perplexity, "bits_per_byte": bits}
