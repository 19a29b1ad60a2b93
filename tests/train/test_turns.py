"""What is done between two steps: clocks that agree, and no validation lost."""

import signal
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from conftest import MakeRun
from fwpkm.train.config import ScheduleConfig
from fwpkm.train.loop import Trainer
from fwpkm.train.parallel import Group
from fwpkm.train.stop import StopRequest


@dataclass(frozen=True, kw_only=True)
class BesideTheFirst(Group):
    """A second process; what the first one would add is given."""

    theirs: tuple[int, ...]

    def add_up(self, x: Tensor) -> Tensor:
        return x + torch.tensor(self.theirs)


def test_all_processes_go_by_the_first_ones_clock(make_run: MakeRun) -> None:
    run: Trainer = make_run(steps=1000, max_minutes=60.0, schedule=ScheduleConfig(horizon="minutes"))
    run.group = BesideTheFirst(rank=1, world=2, theirs=(0, 0, 0, 90_000_000))
    run.progress = replace(run.progress, step=1, seconds=77.0)
    assert run._turn(StopRequest()) is None
    assert run.progress.seconds == 90.0
    assert run.share_done() == pytest.approx(90 / 3600)


def test_a_stop_where_validation_is_due_does_not_drop_it(make_run: MakeRun) -> None:
    settings = {"validate_every": 2, "steps": 6}
    first: Trainer = make_run(**settings)
    for _ in range(2):
        first._step(next(first.source))
    stop = StopRequest()
    stop.note(signal.SIGTERM, None)
    assert first.run(stop).end == "stopped"
    again: Trainer = make_run(**settings)
    assert again.resume().step == 2
    again.run(StopRequest())
    assert again.log is not None
    assert [line["step"] for line in again.log.folder.read_metrics("validation")] == [2, 4, 6]
    assert make_run(**settings).resume().validated == 6
