"""Drawings as files of their own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fwpkm.eval.continual import ContinualResult
from fwpkm.eval.files import Result
from fwpkm.eval.gates import GateResult
from fwpkm.eval.needles import NeedleResult, Variant
from fwpkm.eval.perplexity import PerplexityResult
from fwpkm.eval.slots import SlotResult
from fwpkm.files import whole_file
from fwpkm.report.continual import continual_curves
from fwpkm.report.needles import groups, needle_curves, needle_maps
from fwpkm.report.others import gate_curves, perplexity_curves, slot_curves

NEEDLES_TITLE = "Samples with all tokens of all answers right, mean over depths"
PERPLEXITY_TITLE = "Mean cost of a token, by position in its run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing of its own."""

    name: str
    """What its file is called; "" is the only one of its result."""
    title: str
    svg: str


def draw_result(result: Result) -> list[Figure]:
    """Draw all that there is to draw of one result."""
    if isinstance(result, NeedleResult):
        return list(_needles(result))
    if isinstance(result, PerplexityResult):
        return [Figure(name="", title=PERPLEXITY_TITLE, svg=perplexity_curves([result]))]
    if isinstance(result, GateResult):
        return [Figure(name="", title="Mean gate by position", svg=gate_curves(result))]
    return list(_slots(result) if isinstance(result, SlotResult) else _continual(result))


def write_figures(result_file: Path, figures: Sequence[Figure]) -> list[Path]:
    """Write figures beside their result's file: X.svg or X-NAME.svg beside X.json. Return where."""
    stem = result_file.name.removesuffix(".json")
    paths = [result_file.with_name(f"{stem}{'-' * bool(own.name)}{own.name}.svg") for own in figures]
    for path, own in zip(paths, figures, strict=True):
        write_svg(path, own.svg)
    return paths


def write_svg(path: Path, svg: str) -> None:
    """Write a drawing, whole or not at all, into a folder that is made if need be."""
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as file:
        file.write(svg.encode("utf-8", "replace"))


def _needles(result: NeedleResult) -> Iterator[Figure]:
    yield Figure(name="lengths", title=NEEDLES_TITLE, svg=needle_curves([result]))
    for asked, (title, svg) in zip(groups(result), needle_maps(result), strict=True):
        yield Figure(name=_depths(*asked), title=title, svg=svg)


def _depths(variant: Variant, reads: int) -> str:
    way = "" if variant == "normal" else f"-{variant.replace('_', '-')}"
    return f"depths-{reads}-read{'s' * (reads > 1)}{way}"


def _slots(result: SlotResult) -> Iterator[Figure]:
    growth, ages = slot_curves(result)
    yield Figure(name="growth", title="Slots in use", svg=growth)
    yield Figure(name="ages", title="Age of what is read", svg=ages)


def _continual(result: ContinualResult) -> Iterator[Figure]:
    for i, (title, svg) in enumerate(continual_curves(result), start=1):
        yield Figure(name=f"phase-{i}", title=title, svg=svg)
