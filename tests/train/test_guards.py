"""Steps that must not be taken, memories that do nothing, and requests to stop."""

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from conftest import MakeRun, losses
from fwpkm.data.batches import Batch
from fwpkm.recipe import read_recipe
from fwpkm.train.config import CheckpointConfig, GuardConfig
from fwpkm.train.guards import TooManySkippedError, warnings_about
from fwpkm.train.loop import Trainer
from fwpkm.train.stop import StopRequest, stop_on_signals


class Hooked:
    """A source that does something before a batch is handed out."""

    def __init__(self, source: Any, at: int, do: Any) -> None:
        self.source, self.at, self.do, self.count = source, at, do, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.count += 1
        if self.count == self.at:
            self.do()
        return next(self.source)

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.source.load_state_dict(state)


def start_again(run: Trainer) -> None:
    """Take a run's checkpoints and metrics away."""
    for path in run.checkpoints.paths():
        shutil.rmtree(path)
    assert run.log is not None
    run.log.folder.metrics.unlink()


@pytest.mark.parametrize("carry", ["sequence", "document"])
def test_a_step_with_a_nonfinite_gradient_is_skipped(make_run: MakeRun, carry: str) -> None:
    run = make_run(carry=carry)
    run._step(next(run.source))
    before = {name: x.clone() for name, x in run.model.state_dict().items()}
    run.model.norm.weight.register_hook(lambda g: g * float("nan"))
    run._step(next(run.source))
    assert run.progress.step == 2
    assert run.progress.skipped_in_a_row == 1
    assert run.carried == [None]
    for name, x in run.model.state_dict().items():
        assert torch.equal(x, before[name]), name


def test_the_count_of_skipped_steps_starts_again(make_run: MakeRun) -> None:
    run = make_run()
    handle = run.model.norm.weight.register_hook(lambda g: g * float("inf"))
    run._step(next(run.source))
    handle.remove()
    run._step(next(run.source))
    assert run.progress.skipped_in_a_row == 0


def test_too_many_in_a_row_end_the_run_without_a_checkpoint(make_run: MakeRun) -> None:
    run = make_run(guards=GuardConfig(max_skipped=2))
    with torch.no_grad():
        run.model.embed.weight[0] = float("nan")
        run.model.norm.weight.fill_(float("nan"))
    with pytest.raises(
        TooManySkippedError, match=r"loss=nan .* the 2th in a row; lower train\.optimizer\.lr"
    ):
        run.run(StopRequest())
    assert run.checkpoints.paths() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_and_it_goes_on(
    make_run: MakeRun, number: signal.Signals
) -> None:
    whole = make_run(steps=3)
    whole.run(StopRequest())
    expected = losses(whole)
    start_again(whole)

    stopped = make_run(steps=3)
    stopped.source = Hooked(stopped.source, 2, lambda: os.kill(os.getpid(), number))
    with stop_on_signals() as stop:
        outcome = stopped.run(stop)
    assert (outcome.end, outcome.progress.step, outcome.signal) == ("stopped", 2, number)
    resumed = make_run(steps=3)
    assert resumed.resume().step == 2
    assert resumed.run(StopRequest()).end == "finished"
    assert losses(resumed) == expected


def test_a_second_interrupt_is_obeyed_at_once() -> None:
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def gpu_is_full() -> None:
    raise torch.OutOfMemoryError("no room")


def cpu_is_full() -> None:
    torch.zeros(2**50)


def numpy_is_full() -> None:
    np.zeros(2**50)


@pytest.mark.parametrize("fail", [gpu_is_full, cpu_is_full, numpy_is_full])
@pytest.mark.parametrize(("where", "step"), [("runner.run", 1), ("_trace", 2)])
def test_out_of_memory_leaves_what_there_was_at_that_moment(
    make_run: MakeRun, fail: Callable[[], None], where: str, step: int
) -> None:
    whole = make_run(steps=3, trace_every=1)
    whole.run(StopRequest())
    expected = losses(whole)
    start_again(whole)

    run = make_run(steps=3, trace_every=1)
    owner, name = (run.runner, "run") if where == "runner.run" else (run, "_trace")
    run.source = Hooked(run.source, 2, lambda: setattr(owner, name, lambda *args: fail()))
    with pytest.raises(RuntimeError, match=r"out of memory in step \d; .* raise train\.accumulate"):
        run.run(StopRequest())
    resumed = make_run(steps=3, trace_every=1)
    assert resumed.resume().step == step
    resumed.run(StopRequest())
    assert losses(resumed) == expected


def test_weights_that_were_updated_in_part_are_not_written_down(make_run: MakeRun) -> None:
    run = make_run(steps=3, checkpoints=CheckpointConfig(every_steps=1, keep=9))

    def update_in_part() -> None:
        with torch.no_grad():
            run.model.embed.weight += 1
        cpu_is_full()

    run.source = Hooked(run.source, 3, lambda: setattr(run.optimizer, "step", update_in_part))
    with pytest.raises(RuntimeError, match="out of memory in step 3; the last checkpoint is whole"):
        run.run(StopRequest())
    assert make_run(steps=3).resume().step == 2
    assert [p.name for p in run.checkpoints.paths()] == ["step-00000001", "step-00000002"]


def test_other_errors_pass_through_and_save_nothing(make_run: MakeRun) -> None:
    run = make_run(steps=3)

    def fail(*args: object) -> None:
        raise RuntimeError("the device is on fire")

    run.source = Hooked(run.source, 2, lambda: setattr(run.runner, "run", fail))
    with pytest.raises(RuntimeError, match=r"^the device is on fire$"):
        run.run(StopRequest())
    assert run.checkpoints.paths() == []


def test_metrics_that_cannot_be_written_end_the_run_and_it_goes_on(make_run: MakeRun) -> None:
    whole = make_run(steps=4)
    whole.run(StopRequest())
    expected = losses(whole)
    start_again(whole)

    run = make_run(steps=4)
    assert run.log is not None
    folder, append = run.log.folder, run.log.folder.append_metrics

    def fill_up(kind: str, step: int, values: Any) -> None:
        if step < 4:
            return append(kind, step, values)
        with folder.metrics.open("a") as file:
            file.write('{"kind": "tra')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder.append_metrics = fill_up  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space left"):
        run.run(StopRequest())
    resumed = make_run(steps=4)
    assert resumed.log is not None
    assert resumed.resume().step == 2
    resumed.log.folder.resume(read_recipe("small/swa_fwpkm"), 2)
    resumed.run(StopRequest())
    assert losses(resumed) == expected


def test_minutes_end_a_run_well(make_run: MakeRun) -> None:
    run = make_run(steps=99, max_minutes=1e-9)
    outcome = run.run(StopRequest())
    assert outcome.end == "out of time"
    assert outcome.progress.step == 1
    assert outcome.validation["loss"] > 0
    assert run.checkpoints.newest_whole() is not None


def test_tokens_end_a_run(make_run: MakeRun) -> None:
    assert make_run(steps=None, max_tokens=2 * 16 * 2 + 1).run(StopRequest()).progress.step == 3


def test_collapse_and_saturation_are_said_once(make_run: MakeRun) -> None:
    run = make_run(trace_every=1, guards=GuardConfig(min_slot_share=0.49, gate_margin=0.499))
    assert run.log is not None
    said: list[str] = []
    run.log.say = said.append  # type: ignore[method-assign]
    run.run(StopRequest())
    kinds = [text.split(":")[1].split()[0] for text in said if text.startswith("warning")]
    assert len(kinds) == len(set(kinds)) > 0
    again = make_run(steps=6, trace_every=1, guards=run.config.guards)
    again.resume()
    assert set(again.progress.warned) == set(run.progress.warned)


@pytest.mark.parametrize(
    ("metrics", "word"),
    [
        ({"memory.1.slots_used": 0.01}, "addressing_weight"),
        ({"memory.1.gate": 0.001}, "narrow_probability"),
        ({"memory.1.gate": 0.999}, "lower train.optimizer.lr"),
    ],
)
def test_warnings_name_the_remedy(metrics: dict[str, float], word: str) -> None:
    ((name, text),) = warnings_about(metrics, GuardConfig(), ())
    assert name in metrics
    assert word in text
    assert warnings_about(metrics, GuardConfig(), [name]) == []


def test_sound_memories_raise_no_warning() -> None:
    assert warnings_about({"memory.1.gate": 0.4, "memory.1.slots_used": 0.3}, GuardConfig(), ()) == []
