"""One HTML file with everything in it: no scripts, no fonts, no pictures from elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from html import escape
from pathlib import Path

from fwpkm.eval.continual import ContinualResult
from fwpkm.eval.files import Result, kind_of
from fwpkm.eval.gates import GateResult
from fwpkm.eval.needles import NeedleResult
from fwpkm.eval.perplexity import PerplexityResult
from fwpkm.eval.slots import SlotResult
from fwpkm.files import whole_file
from fwpkm.nested import to_mapping
from fwpkm.report.continual import continual_tables
from fwpkm.report.figures import NEEDLES_TITLE, PERPLEXITY_TITLE, draw_result
from fwpkm.report.needles import comparison_table, needle_curves, needle_maps, needle_tables
from fwpkm.report.others import (
    gate_table,
    perplexity_comparison,
    perplexity_curves,
    perplexity_table,
    slot_table,
)
from fwpkm.report.table import Table

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc }
figure { display: inline-block; margin: .6rem 1.4rem .6rem 0; vertical-align: top; max-width: 100%; overflow-x: auto }
figcaption { font-size: .9rem; margin-bottom: .3rem }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: .88rem }
caption { text-align: left; font-weight: 600; padding: .2rem 0 } th, td { padding: .15rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left; white-space: nowrap }
.origin th, .origin td { text-align: left; overflow-wrap: anywhere }
tr:nth-child(even) td { background: #f6f6f4 }
thead th { border-bottom: 1px solid #888 }
pre { background: #f6f6f4; padding: .6rem; overflow-x: auto; font-size: .8rem }
.wide { overflow-x: auto } .wide td { white-space: nowrap }
"""


def write_report(
    path: str | Path, results: Sequence[Result], *, title: str, notes: Sequence[str] = ()
) -> None:
    """Write the page of `make_page` to a file, whole or not at all."""
    write_page(Path(path), make_page(results, title=title, notes=notes))


def write_page(path: Path, page: str) -> None:
    """Write HTML, whole or not at all, into a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(page.encode("utf-8", "replace"))


def make_page(results: Sequence[Result], *, title: str, notes: Sequence[str] = ()) -> str:
    """Return results as one page: curves of all results of a kind together, then each result's own tables.

    Args:
        results: Any mixture of kinds.
        title: The heading.
        notes: Paragraphs under it.

    Raises:
        ValueError: If there is no result.
    """
    if not results:
        raise ValueError("report: there must be at least one result, got none")
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(note)}</p>" for note in notes)]
    body += _needles([r for r in results if isinstance(r, NeedleResult)])
    body += _perplexity([r for r in results if isinstance(r, PerplexityResult)])
    body += _gates([r for r in results if isinstance(r, GateResult)])
    body += _slots([r for r in results if isinstance(r, SlotResult)])
    body += _continual([r for r in results if isinstance(r, ContinualResult)])
    body += ["<h2>How this was measured</h2>", '<div class="origin">']
    body += [*(origin_table(r).to_html() for r in results), "</div>"]
    return html_page(title, body)


def html_page(title: str, body: Sequence[str]) -> str:
    """Put HTML into a page that needs nothing from elsewhere."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def origin_table(result: Result) -> Table:
    """List where a result comes from, and its settings."""
    origin = ((f.name.replace("_", " "), getattr(result.origin, f.name)) for f in fields(result.origin))
    settings = to_mapping(result.settings).items()
    rows = [(name, _plain(value)) for name, value in (*origin, *settings)]
    return Table(
        title=f"{kind_of(result)} of {result.origin.name}", columns=("what", "value"), rows=tuple(rows)
    )


def _needles(results: Sequence[NeedleResult]) -> Iterator[str]:
    if not results:
        return
    yield "<h2>Needles in a haystack</h2>"
    yield figure(NEEDLES_TITLE, needle_curves(results))
    yield comparison_table(results).to_html()
    for result in results:
        for title, drawn in needle_maps(result):
            yield figure(title, drawn)
    for result in results:
        yield from (table.to_html() for table in needle_tables(result))


def _perplexity(results: Sequence[PerplexityResult]) -> Iterator[str]:
    if not results:
        return
    yield "<h2>Perplexity by position</h2>"
    yield figure(PERPLEXITY_TITLE, perplexity_curves(results))
    yield perplexity_comparison(results).to_html()
    yield from (perplexity_table(result).to_html() for result in results)


def _gates(results: Sequence[GateResult]) -> Iterator[str]:
    if not results:
        return
    yield "<h2>Gates</h2>"
    for result in results:
        yield from _figures(result)
        yield gate_table(result).to_html()


def _slots(results: Sequence[SlotResult]) -> Iterator[str]:
    if not results:
        return
    yield "<h2>Slots</h2>"
    for result in results:
        yield from _figures(result)
        yield slot_table(result).to_html()


def _continual(results: Sequence[ContinualResult]) -> Iterator[str]:
    if not results:
        return
    yield "<h2>One domain, another, and the first again</h2>"
    for result in results:
        yield from _figures(result)
        yield from (table.to_html() for table in continual_tables(result))


def _figures(result: Result) -> Iterator[str]:
    yield from (figure(own.title, own.svg) for own in draw_result(result))


def figure(title: str, drawn: str) -> str:
    """Put a title over a drawing."""
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>"


def _plain(value: object) -> str:
    return ", ".join(_plain(item) for item in value) if isinstance(value, list | tuple) else f"{value}"
