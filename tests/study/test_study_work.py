"""The order of work, and what becomes of tasks that fail or are stopped."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path

import pytest
from study_helpers import Ended

from fwpkm.study.curves import read_training
from fwpkm.study.tasks import Task
from fwpkm.study.work import locked, start_process, work
from fwpkm.train.rundir import RunFolder
from fwpkm.train.stop import StopRequest


def make_tasks(folder: Path, *names: str) -> list[Task]:
    """One training for each name, and a second one that needs it."""
    tasks = []
    for name in names:
        first = Task(
            system=name,
            seed=0,
            title="train",
            arguments=("train", name),
            result=folder / name / "run" / "model",
        )
        after = replace(
            first, title="more", arguments=("more", name), result=folder / name / "more" / "model"
        )
        tasks += [first, replace(after, needs=first.result)]
    return tasks


class Office:
    """Starts tasks that take some looks to end, and watches how many there are."""

    def __init__(self, *, looks: int = 2, codes: dict[str, int] | None = None) -> None:
        self.looks, self.codes = looks, codes or {}
        self.begun: list[str] = []
        self.busy = self.most = 0
        self.stopped: list[str] = []

    def start(self, task: Task) -> "Desk":
        self.begun.append(" ".join(task.arguments))
        self.busy += 1
        self.most = max(self.most, self.busy)
        return Desk(self, task)


class Desk:
    def __init__(self, office: Office, task: Task) -> None:
        self.office, self.task, self.looks = office, task, office.looks
        self.code = office.codes.get(" ".join(task.arguments), 0)

    def poll(self) -> int | None:
        self.looks -= 1
        if self.looks > 0:
            return None
        self.office.busy -= 1
        if self.code == 0:
            self.task.result.mkdir(parents=True)
        elif self.code > 0:
            self.task.log.parent.mkdir(parents=True, exist_ok=True)
            self.task.log.write_text("step 1\nit broke: loss=nan\n\n")
        return self.code

    def terminate(self) -> None:
        self.code = 128 + signal.SIGTERM
        self.office.stopped.append(" ".join(self.task.arguments))


def do(tasks: list[Task], office: Office, jobs: int = 1) -> list[str]:
    said: list[str] = []
    work(tasks, jobs=jobs, start=office.start, stop=StopRequest(), say=said.append)
    return said


def test_tasks_are_done_in_order_and_none_before_what_it_needs(tmp_path: Path) -> None:
    office = Office()
    said = do(make_tasks(tmp_path, "a", "b"), office)
    assert office.begun == ["train a", "more a", "train b", "more b"]
    assert office.most == 1
    assert len(said) == 8
    assert "a, seed 0, train: begins" in said[0]
    assert "a, seed 0, train: done after" in said[1]


def test_so_many_work_side_by_side_and_no_more(tmp_path: Path) -> None:
    office = Office(looks=5)
    do(make_tasks(tmp_path, "a", "b", "c"), office, jobs=2)
    assert office.most == 2
    assert office.begun[:2] == ["train a", "train b"]
    assert sorted(office.begun) == sorted(f"{what} {name}" for name in "abc" for what in ("train", "more"))


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    do(make_tasks(tmp_path, "a", "b"), Office())
    office = Office()
    assert do(make_tasks(tmp_path, "a", "b"), office) == []
    assert office.begun == []


def test_a_failure_stops_nothing_else_and_is_kept_with_its_reason(tmp_path: Path) -> None:
    tasks, office = make_tasks(tmp_path, "a", "b"), Office(codes={"train a": 1})
    said = do(tasks, office)
    assert office.begun == ["train a", "train b", "more b"]
    assert "FAILED (it broke: loss=nan)" in said[1]
    assert [task.state for task in tasks] == ["failed", "to do", "done", "done"]
    assert tasks[0].reason == "it broke: loss=nan"
    assert json.loads(tasks[0].failure.read_text())["command"] == "fwpkm train a"
    again = Office()
    do(tasks, again)
    assert again.begun == []


def test_a_task_that_leaves_nothing_has_failed(tmp_path: Path) -> None:
    (task,) = make_tasks(tmp_path, "a")[:1]
    do([task], Office(codes={"train a": 0}))
    task.result.rmdir()

    def start(_: Task) -> Ended:
        return Ended(0)

    work([task], jobs=1, start=start, stop=StopRequest(), say=str)
    assert task.reason == "it ended well and left no result"


def test_a_request_to_stop_ends_what_works_and_begins_nothing_more(tmp_path: Path) -> None:
    tasks, office, stop = make_tasks(tmp_path, "a", "b", "c"), Office(looks=3), StopRequest()

    def say(text: str) -> None:
        if "b, seed 0, train: begins" in text:
            stop.note(signal.SIGTERM, None)

    work(tasks, jobs=2, start=office.start, stop=stop, say=say)
    assert sorted(office.stopped) == ["train a", "train b"]
    assert office.begun == ["train a", "train b"]
    assert {task.state for task in tasks} == {"to do"}


@pytest.mark.parametrize("code", [-9, 143])
def test_a_task_that_a_signal_ended_is_not_taken_for_a_failure(code: int, tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, "a")
    said = do(tasks, Office(codes={"train a": code}))
    assert f"stopped by signal {9 if code == -9 else 15}" in said[1]
    assert tasks[0].state == "to do"


def test_an_error_ends_what_works(tmp_path: Path) -> None:
    office = Office(looks=99)

    def say(text: str) -> None:
        if "b, seed 0" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(make_tasks(tmp_path, "a", "b"), jobs=2, start=office.start, stop=StopRequest(), say=say)
    assert office.stopped == ["train a"]


def test_a_folder_is_kept_for_one_study_and_what_it_left_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "out") as lock:
        heir = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,), text=True
        )
        with pytest.raises(RuntimeError, match=r"another study.*is at work in"), locked(tmp_path / "out"):
            pass
    with pytest.raises(RuntimeError, match="or a task that it left behind"), locked(tmp_path / "out"):
        pass
    heir.communicate("\n")
    with locked(tmp_path / "out"):
        pass


def test_a_process_writes_its_log_under_fwpkms_name_with_its_threads(tmp_path: Path) -> None:
    (task,) = make_tasks(tmp_path, "a")[:1]
    task = replace(task, arguments=("info", "nowhere.toml"))
    job = start_process(threads=3)(task)
    assert isinstance(job, subprocess.Popen)
    assert job.wait() == 2
    assert task.log.read_text().startswith("fwpkm info: no recipe 'nowhere.toml'")


def test_steps_that_were_skipped_are_no_divergence(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    for step, loss in enumerate((3.0, nan, 2.0, 1.5, nan), start=1):
        run.append_metrics("train", step, {"tokens": 64 * step, "seconds": 1.0, "loss": loss})
    training = read_training(tmp_path, 0, finished=True)
    assert training is not None
    assert [round(point.loss, 2) for point in training.curve if isfinite(point.loss)] == [3.0, 2.0, 1.5]
    assert training.diverged, "nothing is known of its end but that it has no loss"
    run.append_metrics("validation", 5, {"loss": 1.4})
    validated = read_training(tmp_path, 0, finished=True)
    assert validated is not None
    assert not validated.diverged
