"""Working through the tasks, several side by side, until all are done, failed or stopped."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from fwpkm.lock import holding
from fwpkm.study.tasks import Task
from fwpkm.train.stop import StopRequest

_START = "import sys; sys.argv[0] = 'fwpkm'; from fwpkm.cli.main import main; sys.exit(main())"
_PAUSE_SECONDS = 0.05
_SIGNALLED = 128
_LOCK = "lock"


@runtime_checkable
class Job(Protocol):
    """A task at work; `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Return the exit code, or None while it works."""

    def terminate(self) -> None:
        """Ask it to stop in a state that can be gone on from."""


Start = Callable[[Task], Job]
Say = Callable[[str], None]


def start_process(threads: int, lock: int | None = None) -> Start:
    """Return what starts a task as a process of its own, which writes what it says into the task's log.

    Args:
        threads: How many it may use.
        lock: A file that it holds open: what `locked` gives.
    """

    def start(task: Task) -> Job:
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _START, *task.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                start_new_session=True,  # Ctrl-C reaches this process, which asks the others to stop
                pass_fds=() if lock is None else (lock,),
            )

    return start


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Keep other studies out of a folder, for as long as this one or a task that it has left behind is at work.

    Raises:
        RuntimeError: If one is at work already.
    """
    out.mkdir(parents=True, exist_ok=True)
    refusal = f"another study, or a task that it left behind, is at work in {out}; wait for it or end it"
    with holding(out / _LOCK, refusal) as handle:
        yield handle


def work(tasks: Sequence[Task], *, jobs: int, start: Start, stop: StopRequest, say: Say) -> None:
    """Do all tasks that are not done and have not failed; those that need what is missing in the end are left out.

    Args:
        tasks: In the order in which they are begun.
        jobs: How many work side by side.
        start: Begins one.
        stop: Ends all in a state that can be gone on from.
        say: Told what begins and ends.
    """
    waiting = [task for task in tasks if task.state in ("to do", "begun")]
    working: list[_Working] = []
    try:
        while stop.signal is None:
            while len(working) < jobs and (task := _next(waiting)):
                waiting.remove(task)
                say(f"{_named(task)}: begins, see {task.log}")
                working.append(_Working(task=task, job=start(task), began=time.monotonic()))
            if not working:
                return
            working = _look_after(working, say)
    finally:
        for own in working:
            own.job.terminate()
    while working:
        working = _look_after(working, say)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Working:
    """A task at work."""

    task: Task
    job: Job
    began: float


def _next(waiting: Sequence[Task]) -> Task | None:
    """Return the first task that can begin."""
    return next((task for task in waiting if task.needs is None or task.needs.exists()), None)


def _look_after(working: Sequence[_Working], say: Say) -> list[_Working]:
    """Conclude what has ended, and return the rest; wait for a moment if nothing has."""
    left = []
    for own in working:
        code = own.job.poll()
        if code is None:
            left.append(own)
        else:
            say(f"{_named(own.task)}: {_conclude(own.task, code)} after {time.monotonic() - own.began:.0f} s")
    if len(left) == len(working):
        time.sleep(_PAUSE_SECONDS)
    return left


def _conclude(task: Task, code: int) -> str:
    """Say how a task ended, and write it down if it failed; one that a signal ended can be gone on with."""
    if code == 0 and task.is_done():
        return "done"
    if code < 0 or code > _SIGNALLED:
        return f"stopped by signal {-code if code < 0 else code - _SIGNALLED}"
    last = _last_line(task.log) if code else "it ended well and left no result"
    task.fail(last)
    return f"FAILED ({last})"


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")


def _named(task: Task) -> str:
    return f"{task.system}, seed {task.seed}, {task.title}"
