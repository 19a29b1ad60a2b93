"""fwpkm study, from a recipe to a report, and what it does a second time."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from study_helpers import start_here

from fwpkm.cli.main import main
from fwpkm.eval.files import load_result
from fwpkm.files import read_json, write_json
from fwpkm.recipe import read_recipe
from fwpkm.study.plan import make_plan

NEEDLES = "memory/seed-0/needles-300.json"


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the finished study; tasks are done in this process."""
    monkeypatch.setattr("fwpkm.cli.study_run.start_process", start_here)
    return Path(shutil.copytree(finished, tmp_path / "study"))


def run(study: Path, *options: str) -> int:
    return main(["study", str(study / "study.toml"), "--out", str(study / "out"), *options])


def steps_of(study: Path) -> list[dict[str, float]]:
    lines = (study / "out/memory/seed-0/run/metrics.jsonl").read_text().splitlines()
    return [line for text in lines if (line := json.loads(text))["kind"] == "train"]


def test_it_leaves_models_results_and_how_they_came_to_be(study: Path) -> None:
    out = study / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {
        "study.toml", "study.json", "env.json", "commands.sh", "report.html", "figures", "lock",
        "memory", "diverges", "fails",
    }  # fmt: skip
    figures = {path.stem for path in (out / "figures").iterdir()}
    assert {"training", "needles-1-read", "depths-memory-1-read", "depths-diverges-1-read"} <= figures
    assert all((out / f"figures/{name}.svg").read_text().startswith("<svg ") for name in figures)
    assert not list(out.glob("memory/**/*.svg"))
    result = load_result(out / NEEDLES)
    assert result.origin.name == "memory"
    assert result.origin.command.startswith("fwpkm eval needles ")
    assert [cell.samples for cell in result.cells] == [2] * 4
    assert read_json(out / "memory/seed-0/run/env.json")["command"][:2] == ["fwpkm", "train"]
    assert (
        make_plan(read_recipe(out / "study.toml", ["study.systems=[{recipe='small/swa'}]"])).config.tokens
        == 640
    )
    commands = (out / "commands.sh").read_text().splitlines()
    assert commands[0] == "#!/bin/sh -e"
    assert [line.split()[1] for line in commands[1:]] == ["train", "eval"] * 3


def test_systems_that_diverge_or_fail_are_reported_and_stop_nothing(study: Path) -> None:
    found = read_json(study / "out/study.json")
    failed, diverged = found["failures"]
    assert (failed["system"], failed["seed"], failed["task"]) == ("fails", 0, "train")
    assert "must be a torch device or 'auto', got 'nowhere'" in failed["reason"]
    assert (diverged["system"], diverged["reason"]) == ("diverges", "diverged: its last loss is no number")
    assert [own["label"] for own in found["systems"]] == ["memory", "diverges", "fails"]
    assert [len(own["readings"][0]["needles"]) for own in found["systems"]] == [2, 2, 0]
    page = (study / "out/report.html").read_text()
    for part in ("What failed", "1 failed", "1 diverged", "1 done"):
        assert part in page


def test_a_second_time_nothing_is_done_but_the_report(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def start(*_: object) -> object:
        raise AssertionError("nothing is to be done")

    monkeypatch.setattr("fwpkm.cli.study_run.start_process", lambda *_: start)
    (study / "out/report.html").unlink()
    assert run(study) == 1
    printed = capsys.readouterr().out
    assert "Needles, 1 read, another document's memory" in printed
    assert str(study / "out/report.html") in printed
    assert (study / "out/report.html").exists()


def test_a_half_finished_training_goes_on_where_it_was(study: Path) -> None:
    before, run_folder = steps_of(study), study / "out/memory/seed-0/run"
    assert [line["step"] for line in before] == [1, 2]
    shutil.rmtree(run_folder / "model")
    shutil.rmtree(run_folder / "checkpoints/step-00000002")
    (study / "out" / NEEDLES).unlink()
    assert run(study) == 1
    after = steps_of(study)
    assert after[0] == before[0]
    assert after[1]["loss"] == before[1]["loss"]
    assert after[1]["seconds"] != before[1]["seconds"]
    assert (run_folder / "model").is_dir()


def test_models_whose_work_is_done_may_be_deleted(study: Path) -> None:
    finished = read_json(study / "out/study.json")["systems"]
    for gone in ("run/model", "run"):
        shutil.rmtree(study / "out/memory/seed-0" / gone)
        assert run(study) == 1
        assert not (study / "out/memory/seed-0" / gone).exists()
        assert read_json(study / "out/study.json")["systems"] == finished
    assert run(study, "--set", "study.needles.lengths=[300, 320]") == 1
    assert (study / "out/memory/seed-0/run/model").exists()


def test_what_is_kept_of_a_training_is_said_to_be_damaged(study: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(study / "out/memory/seed-0/run")
    (study / "out/memory/seed-0/training.json").write_text('{"steps": 1}')
    assert run(study, "--report-only") == 2
    assert "memory/seed-0/training.json: Training: " in capsys.readouterr().err


def test_only_what_is_missing_or_of_other_settings_is_measured(study: Path) -> None:
    old = (study / "out" / NEEDLES).read_text()
    assert run(study, "--set", "study.needles.lengths=[300, 320]") == 1
    assert (study / "out" / NEEDLES).read_text() == old
    assert load_result(study / "out/memory/seed-0/needles-320.json").settings.lengths == (320,)
    assert run(study, "--set", "study.needles.depths=[0.5]") == 1
    assert [cell.depth for cell in load_result(study / "out" / NEEDLES).cells] == [0.5, 0.5]


def test_a_result_that_is_damaged_is_measured_again(study: Path) -> None:
    old = load_result(study / "out" / NEEDLES)
    (study / "out" / NEEDLES).write_text("{")
    assert run(study) == 1
    assert load_result(study / "out" / NEEDLES).cells == old.cells


def test_other_recipes_are_refused_with_what_differs(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(study, "--set", "study.tokens=960") == 2
    errors = capsys.readouterr().err
    assert "train.max_tokens was 640 and is 960" in errors
    assert "Choose another --out" in errors


def test_a_study_goes_on_after_settings_were_added(study: Path) -> None:
    file = study / "out/memory/seed-0/recipe.toml"
    lines = file.read_text().splitlines(keepends=True)
    older = [line for line in lines if not line.startswith("gate_cost = ")]
    assert len(older) == len(lines) - 1
    file.write_text("".join(older))
    assert run(study) == 1
    assert file.read_text() == "".join(lines)


def test_what_failed_is_tried_again_on_request(study: Path) -> None:
    failure = study / "out/fails/seed-0/run.failed.json"
    write_json(failure, {"command": "x", "reason": "for a test"})
    run(study)
    assert read_json(failure)["reason"] == "for a test"
    run(study, "--retry")
    assert "must be a torch device" in read_json(failure)["reason"]


def test_one_system_can_be_worked_on_alone(study: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("memory", "diverges"):
        shutil.rmtree(study / "out" / name)
    run(study, "--only", "memory")
    assert load_result(study / "out" / NEEDLES).origin.name == "memory"
    assert not (study / "out/diverges/seed-0/run").exists()
    assert len((study / "out/commands.sh").read_text().splitlines()) == 7
    assert run(study, "--only", "memory", "--only", "memroy", "--dry-run") == 2
    assert "no system is called memroy; known are memory, diverges, fails" in capsys.readouterr().err


def test_a_dry_run_lists_tasks_and_touches_nothing(study: Path, capsys: pytest.CaptureFixture) -> None:
    (study / "out" / NEEDLES).unlink()
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    assert run(study, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A <b>tiny</b> study: 2 of 6 tasks to do, 1 at a time"
    assert "memory, seed 0, train: done" in lines
    assert "memory, seed 0, needles in 300 tokens: to do" in lines
    assert "fails, seed 0, train: failed" in lines
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


def test_a_report_can_be_made_from_results_alone(study: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(study / "out/memory/seed-0/run")
    (study / "out/report.html").unlink()
    assert run(study, "--report-only") == 1
    assert "memory" in capsys.readouterr().out
    assert "another document" in (study / "out/report.html").read_text()


def test_a_task_whose_process_was_killed_is_no_success(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "fwpkm.cli.study_run.start_process",
        lambda threads, lock: lambda task: SimpleNamespace(poll=lambda: -9, terminate=lambda: None),
    )
    (study / "out" / NEEDLES).unlink()
    assert run(study, "--only", "memory") == 1
    assert "1 of " in (said := capsys.readouterr().err)
    assert "are not done; the same command goes on" in said
