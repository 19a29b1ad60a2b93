"""fwpkm demo, shortened: everything happens, only sooner."""

import re
from pathlib import Path

import pytest

from fwpkm.cli.demo_novel import with_settings
from fwpkm.cli.demo_plan import DemoPlan
from fwpkm.cli.main import main
from fwpkm.eval.files import load_result
from fwpkm.recipe import read_recipe

SMALLER = """
extends = "{base}"
title = "{title}"
[model]
dim = 32
num_layers = 2
{memory}
[model.swiglu]
hidden_dim = 32
[data]
seq_len = 160
batch_size = 2
recall = {{ rate = 1.0, max_needles = 1 }}
[train]
validation_batches = 1
"""
MEMORY = "fwpkm_layers = [1]\n[model.fwpkm]\nnum_subkeys = 16\nkey_dim = 16\nvalue_dim = 16"


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    options = []
    for flag, base, memory in (("--recipe", "small/swa_fwpkm", MEMORY), ("--twin", "small/swa", "")):
        file = tmp_path / f"{base.split('/')[1]}.toml"
        file.write_text(SMALLER.format(base=base, title=f"tiny {base}", memory=memory))
        options += [flag, str(file)]
    return options


def test_the_whole_path_prints_tables_and_the_reports_place(
    recipes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "demo"
    short = ["--minutes", "0.05", "--lengths", "300", "10000000", "--samples", "2", "--out", str(out)]
    assert main(["demo", *recipes, *short]) == 0
    printed = capsys.readouterr().out
    assert "swa_fwpkm: 1 read, another document's memory" in printed
    assert "There was no time for documents of 10,000,000 tokens." in printed
    assert "bits per byte" in printed
    assert f"the report is {out / 'report.html'}" in printed
    assert "</html>" in (out / "report.html").read_text()
    names = sorted(path.name for path in (out / "results").iterdir())
    assert names == [
        f"{kind}-{name}.json" for kind in ("needles", "perplexity") for name in ("swa", "swa_fwpkm")
    ]
    cells = load_result(out / "results" / "needles-swa.json").cells
    assert [(cell.length, cell.samples) for cell in cells] == [(300, 2)] * 4
    steps = re.findall(r"([\d,]+) steps", printed)
    assert len(steps) == 2
    assert int(steps[1]) <= int(steps[0])


def test_a_demonstration_is_not_overwritten(
    recipes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "report.html").write_text("before")
    assert main(["demo", *recipes, "--minutes", "0.05", "--out", str(tmp_path / "demo")]) == 2
    assert "must be new or empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0"], "minutes must be above 0"),
        (["--samples", "0"], "samples must be at least 1"),
        (["--twin", "small/swa_fwpkm"], "twin must be another recipe"),
        (["--recipe", "small/swa_fwpk"], "did you mean 'small/swa_fwpkm'"),
    ],
)
def test_bad_input_ends_in_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["demo", *options, "--out", str(tmp_path / "demo")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_settings_come_last_and_leave_the_rest() -> None:
    recipe = read_recipe("small/swa")
    changed = with_settings(recipe, {"steps": 7, "schedule": {"horizon": "steps"}})
    assert changed.sections["train"]["steps"] == 7
    assert changed.sections["train"]["schedule"]["horizon"] == "steps"
    assert changed.sections["train"]["optimizer"] == recipe.sections["train"]["optimizer"]
    assert recipe.sections == read_recipe("small/swa").sections


def test_the_plan_names_what_ships() -> None:
    for name in (DemoPlan().recipe, DemoPlan().twin):
        assert read_recipe(name).model.num_layers > 0


def test_the_recall_demonstration_is_still_there(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fwpkm.cli.demo_recall.LENGTHS", (64, 256))
    assert main(["demo", "recall", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert "An untrained layer" in printed
    assert re.search(r"^ +256 +\d", printed, re.MULTILINE)
