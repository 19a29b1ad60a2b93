"""The whole path in minutes: train a model and its twin on short sequences, ask both about long documents."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fwpkm.cli.demo_plan import DemoPlan
from fwpkm.cli.session_options import load_reader
from fwpkm.data.haystack import ProseHaystack
from fwpkm.data.needles import NeedleMaker
from fwpkm.data.tokenizer import Tokenizer
from fwpkm.eval.ablate import has_memory, shares_memory
from fwpkm.eval.files import Result, kind_of, save_result
from fwpkm.eval.needles import NeedleCell, NeedleResult, NeedleSettings, measure_needles
from fwpkm.eval.perplexity import PerplexityResult, PerplexitySettings, measure_perplexity
from fwpkm.eval.reader import ModelReader
from fwpkm.eval.result import Origin
from fwpkm.eval.text import open_documents
from fwpkm.models.decoder import Decoder
from fwpkm.recipe import Recipe, merge, read_recipe
from fwpkm.report.needles import comparison_table
from fwpkm.report.others import perplexity_comparison
from fwpkm.report.page import write_report
from fwpkm.train.data import DataConfig
from fwpkm.train.loop import Outcome
from fwpkm.train.run import train

_TEXT = "novel"
_SHARE_TRAINING, _SHARE_TWIN, _SHARE_END = 0.36, 0.29, 0.05
"""Of all minutes, for either model and for what comes after the questions, which get the rest."""
_CAUTION = 1.15
"""How much longer than in proportion a longer document may take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Student:
    """One of the two models, trained."""

    recipe: Recipe
    outcome: Outcome
    model: Decoder
    tokenizer: Tokenizer
    origin: Origin

    @property
    def training(self) -> str:
        """Say what it has been through."""
        done, data = self.outcome.progress, self.recipe.section("data", DataConfig)
        return (
            f"{self.origin.name} ({self.recipe.title or self.recipe.name}): {self.origin.num_parameters:,} parameters, "
            f"{done.step:,} steps, {done.tokens:,} tokens in sequences of {data.seq_len}, {done.seconds:.0f} s"
        )


def run_demo(plan: DemoPlan, out: Path | None = None) -> int:
    """Train, ask, print a table and the path of a report; returns 128 + the signal's number if one stopped it.

    Raises:
        FileExistsError: If `out` holds something already.
        ValueError: If a recipe or the plan is wrong.
    """
    out = out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"demo: {out} must be new or empty; choose another --out")
    began, steps = time.monotonic(), None
    students: list[_Student] = []
    for recipe, folder in zip(_recipes(plan), ("memory", "twin"), strict=True):
        student = _teach(recipe, out / folder, steps)
        if isinstance(student, int):
            return 128 + student
        steps = student.outcome.progress.step
        students.append(student)
    needles, left_out = _needles(students, plan, deadline=began + 60 * (1 - _SHARE_END) * plan.minutes)
    results: list[Result] = [*needles, *(_perplexity(student) for student in students)]
    notes = [*(student.training for student in students), *_excuses(students, left_out)]
    print(_summary(needles, results, notes))
    _write(results, out, notes)
    print(f"\n{time.monotonic() - began:.0f} s in all; the report is {out / 'report.html'}")
    return 0


def _recipes(plan: DemoPlan) -> tuple[Recipe, Recipe]:
    """Read both recipes before anything is trained; the time is each one's own."""
    common = [f"train.seed={plan.seed}", f"data.seed={plan.seed}", "train.validate_every=none"]
    common += ["train.steps=none", "train.schedule.horizon=minutes"]
    shares = ((plan.recipe, _SHARE_TRAINING), (plan.twin, _SHARE_TWIN))
    first, twin = (
        read_recipe(name, [*common, f"train.max_minutes={share * plan.minutes}"]) for name, share in shares
    )
    return first, twin


def _teach(recipe: Recipe, folder: Path, steps: int | None) -> _Student | int:
    """Train for so many steps, or by the clock; return the signal that stopped it, if one did."""
    if steps is not None:
        recipe = with_settings(recipe, {"steps": steps, "schedule": {"horizon": "steps"}})
    print(f"training {recipe.name}: {recipe.title}", file=sys.stderr, flush=True)
    outcome = train(recipe, folder)
    if outcome.signal is not None:
        print(f"stopped; what there is lies in {folder}", file=sys.stderr)
        return outcome.signal
    checkpoint = folder / "model"
    model, tokenizer = load_reader(str(checkpoint), "cpu")
    origin = Origin.of(
        model,
        name=recipe.name,
        checkpoint=str(checkpoint),
        text=_TEXT,
        tokenizer=f"{tokenizer.name} ({tokenizer.fingerprint})",
    )
    return _Student(recipe=recipe, outcome=outcome, model=model, tokenizer=tokenizer, origin=origin)


def with_settings(recipe: Recipe, train_settings: Mapping[str, Any]) -> Recipe:
    """Lay settings over a recipe's section [train]."""
    sections = merge(recipe.sections, {"train": train_settings})
    return replace(recipe, sections=sections)


def _needles(
    students: Sequence[_Student], plan: DemoPlan, *, deadline: float
) -> tuple[list[NeedleResult], list[int]]:
    """Ask about longer and longer documents while there is time; return the lengths left out, too."""
    lengths = sorted(plan.lengths)
    cells: list[list[NeedleCell]] = [[] for _ in students]
    took, before = 0.0, 0
    for i, length in enumerate(lengths):
        if before and time.monotonic() + _CAUTION * took * length / before > deadline:
            return _results(students, plan, lengths[:i], cells), lengths[i:]
        print(f"asking about documents of {length:,} tokens", file=sys.stderr, flush=True)
        start = time.monotonic()
        for student, own in zip(students, cells, strict=True):
            own += measure_needles(
                ModelReader(student.model), _maker(student), _settings(student, plan, [length])
            )
        took, before = time.monotonic() - start, length
    return _results(students, plan, lengths, cells), []


def _results(
    students: Sequence[_Student], plan: DemoPlan, lengths: Sequence[int], cells: Sequence[list[NeedleCell]]
) -> list[NeedleResult]:
    return [
        NeedleResult(origin=student.origin, settings=_settings(student, plan, lengths), cells=tuple(own))
        for student, own in zip(students, cells, strict=True)
    ]


def _settings(student: _Student, plan: DemoPlan, lengths: Sequence[int]) -> NeedleSettings:
    swaps = has_memory(student.model) and not shares_memory(student.model) and plan.samples % 2 == 0
    return NeedleSettings(
        lengths=tuple(lengths),
        depths=plan.depths,
        reads=(1,),
        samples=plan.samples,
        ablations=("wrong_document",) if swaps else (),
        seed=plan.seed,
    )


def _maker(student: _Student) -> NeedleMaker:
    documents = open_documents(_TEXT, student.tokenizer)
    return NeedleMaker("paper", student.tokenizer, ProseHaystack(documents))


def _perplexity(student: _Student) -> PerplexityResult:
    settings = PerplexitySettings(length=4096, max_runs=4)
    documents = open_documents(_TEXT, student.tokenizer)
    bins, runs = measure_perplexity(student.model, student.tokenizer, documents, settings)
    return PerplexityResult(origin=student.origin, settings=settings, bins=bins, runs=runs)


def _excuses(students: Sequence[_Student], left_out: Sequence[int]) -> Iterator[str]:
    """Say what was cut short."""
    steps = [student.outcome.progress.step for student in students]
    if steps[1] < steps[0]:
        yield f"There was no time for all steps of the twin: {steps[1]:,} of {steps[0]:,}."
    if left_out:
        yield f"There was no time for documents of {', '.join(f'{n:,}' for n in left_out)} tokens."


def _summary(needles: Sequence[NeedleResult], results: Sequence[Result], notes: Sequence[str]) -> str:
    losses = [result for result in results if isinstance(result, PerplexityResult)]
    tables = [comparison_table(needles), perplexity_comparison(losses)]
    return "\n\n".join(["\n".join(notes), *(table.to_text() for table in tables)])


def _write(results: Sequence[Result], out: Path, notes: Sequence[str]) -> None:
    for result in results:
        name = f"{kind_of(result)}-{result.origin.name}".replace("/", "-")
        save_result(out / "results" / f"{name}.json", result)
    write_report(
        out / "report.html", results, title="A memory and its twin on the last fifth of a novel", notes=notes
    )
