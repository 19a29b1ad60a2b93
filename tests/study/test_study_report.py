"""A study's numbers over seeds, and its page: parsed, and seen in a headless Chromium where there is one."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from math import log
from pathlib import Path

import pytest
from study_helpers import STUDY, plan_of

from fwpkm.eval.files import save_result
from fwpkm.eval.needles import NeedleCell, NeedleResult
from fwpkm.eval.perplexity import PerplexityResult
from fwpkm.report.study import make_study_page, study_json, write_study_report
from fwpkm.report.study_tables import budget_table, needle_tables, perplexity_tables
from fwpkm.study.curves import read_training
from fwpkm.study.results import StudyResults, read_study
from fwpkm.study.spread import Spread
from fwpkm.study.tasks import Task, make_tasks
from fwpkm.testing.results import make_origin, make_perplexity

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
SETTINGS = ("study.seeds=[0, 1]", "study.perplexity={length=4}", "study.needles.ablations=[]")
BASE, FULL = 'recipe = "base.toml"', 'recipe = "full.toml"\nlabel = "a <b>full</b> twin"'
RIGHT = {("memory", 0): (2, 2), ("memory", 1): (2, 1), ("a <b>full</b> twin", 0): (0, 1)}
"""Samples right at both depths, of 2 each; the twin's second seed is missing."""


def write_training(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    lines = [
        {"kind": "train", "step": i, "loss": 4.0 / i + seed, "tokens": 320 * i, "seconds": 30.0 * i}
        for i in (1, 2, 3, 4)
    ]
    lines.append({"kind": "validation", "step": 4, "loss": (2 + seed) * log(2)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "model").mkdir()


def write_result(task: Task, right: tuple[int, int]) -> None:
    assert task.settings is not None
    origin = replace(make_origin(task.reader), text=task.text)
    if "needles" not in task.title:
        made = make_perplexity()
        bins = tuple(replace(b, nats=b.nats + task.seed) for b in made.bins)
        save_result(
            task.result, PerplexityResult(origin=origin, settings=task.settings, bins=bins, runs=made.runs)
        )
        return
    cells = tuple(
        NeedleCell(
            variant="normal", length=300, depth=depth, reads=1, samples=2, right=n, tokens=14, tokens_right=7, nats=1.0
        )
        for depth, n in zip((0.0, 1.0), right, strict=True)
    )  # fmt: skip
    save_result(task.result, NeedleResult(origin=origin, settings=task.settings, cells=cells))


@pytest.fixture
def results(tmp_path: Path) -> StudyResults:
    plan, out = plan_of(tmp_path, BASE, FULL, settings=SETTINGS, text=STUDY), tmp_path / "out"
    for task in make_tasks(plan, out):
        right = RIGHT.get((task.system, task.seed))
        if right is not None and task.settings is None:
            write_training(task.result.parent, task.seed)
        elif right is not None:
            write_result(task, right)
    return read_study(plan, out)


def test_cells_are_means_and_deviations_over_seeds(results: StudyResults) -> None:
    (needles,) = needle_tables(results)
    assert needles.columns == ("system", "300 tokens")
    assert needles.rows == (("memory", "87.5 ± 17.7%"), ("a <b>full</b> twin", "25%"))
    (losses,) = perplexity_tables(results)
    assert losses.rows[0][0] == "memory"
    assert losses.rows[0][1] == f"{2.5 / log(2):.3f} ± {(0.5**0.5) / log(2):.3f}"
    assert losses.rows[1][1] == f"{2.0 / log(2):.3f}"


def test_budgets_are_said_with_what_is_missing(results: StudyResults) -> None:
    table = budget_table(results)
    memory, full = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert memory["parameters"] == f"{results.systems[0].system.parameters:,}"
    assert memory["of the first"] == "100.0%"
    assert (
        full["of the first"]
        == f"{results.systems[1].system.parameters / results.systems[0].system.parameters:.1%}"
    )
    assert (memory["tokens"], memory["minutes"], memory["tokens/s"]) == ("1,280", "2.00", "11")
    assert memory["validation, bits per token"] == "2.5000 ± 0.7071"
    assert (memory["seeds"], full["seeds"]) == ("2 done", "1 done, 1 to do")


def test_a_json_file_holds_every_seed(results: StudyResults) -> None:
    found = json.loads(json.dumps(study_json(results, "fwpkm study x")))
    (needles,) = found["systems"][0]["readings"][0]["needles"]
    assert needles["values"] == [1.0, 0.75]
    assert needles["mean"] == 0.875
    assert found["systems"][1]["readings"][0]["needles"][0]["std"] is None
    assert found["systems"][0]["trainings"][1]["validation_nats"] == pytest.approx(3 * log(2))
    assert found["command"] == "fwpkm study x"


def test_curves_average_steps_that_lie_together(tmp_path: Path) -> None:
    write_training(tmp_path / "run", 0)
    training = read_training(tmp_path, 0, finished=True)
    assert training is not None
    assert training.losses == {320: 4.0, 640: 2.0, 960: 4 / 3, 1280: 1.0}
    lines = [
        {"kind": "train", "step": i, "loss": float(i), "tokens": 1000 + i, "seconds": 1.0}
        for i in range(1, 24)
    ]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_training(tmp_path, 0, finished=True).losses == {1001: 12.0}


def test_the_spread_of_one_seed_is_not_known() -> None:
    assert (Spread.of([2.0]).std, Spread.of([1.0, 3.0]).std) == (None, pytest.approx(2**0.5))
    with pytest.raises(ValueError, match="at least one value"):
        Spread.of([])


class Reader(HTMLParser):
    """Collects what a page would run or leave open, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_by_itself_and_says_all_commands(results: StudyResults) -> None:
    page = make_study_page(results, "fwpkm study x --out y")
    read = Reader(page)
    assert read.open == []
    assert not {"script", "link", "img", "iframe", "b"} & set(read.tags)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)
    assert "fwpkm study x --out y" in read.text
    for task in results.tasks:
        assert task.command in read.text
    assert "3 of 12 tasks are not done" in read.text
    assert "a <b>full</b> twin: 1 read, 1 seed" in read.text
    assert (
        page.count("<polygon") == 1 + 1 + 1
    )  # bands: training, needles, perplexity of the system with two seeds


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; the test above parses the page")
def test_a_browser_sees_every_drawing_and_table(results: StudyResults, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_study_report(page, results, "fwpkm study x")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    written = page.read_text()
    for tag in ("svg", "table", "tr", "td", "polyline", "polygon", "rect", "figure", "pre"):
        opening = re.compile(rf"<{tag}[ >]")
        assert len(opening.findall(done.stdout)) == len(opening.findall(written)) > 0, tag
    assert "<b>" not in done.stdout
