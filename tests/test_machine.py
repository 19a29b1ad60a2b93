"""Figures name the device and the backend that they are of, and the commit of what ran."""

import subprocess
from contextlib import nullcontext

import pytest
import torch

import fwpkm.bench.measure as measure
import fwpkm.machine as machine
from fwpkm.bench.measure import peak_device_bytes, seconds_of
from fwpkm.machine import describe_machine, is_clean


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with GPUs, as far as names go."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_name", lambda device=None: f"GPU {torch.device(device).index or 0}"
    )
    monkeypatch.setattr(
        machine, "name_backend", lambda device: "triton" if device.type == "cuda" else "numba"
    )


@pytest.mark.usefixtures("two_gpus")
def test_a_cpu_is_not_called_a_gpu_because_there_is_one():
    on_cpu = describe_machine("cpu")
    assert "GPU" not in on_cpu["device"]
    assert on_cpu["backend"] == "numba"
    assert describe_machine("cpu", "torch")["backend"] == "torch"


@pytest.mark.usefixtures("two_gpus")
def test_the_gpu_that_was_used_is_named():
    assert describe_machine("cuda:1")["device"] == "GPU 1"
    assert describe_machine("cuda")["backend"] == "triton"
    assert describe_machine()["device"] == "GPU 0"


def test_the_device_that_is_measured_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    seconds_of(lambda: waited.append("run"), "cuda:1")
    assert waited == [torch.device("cuda:1"), "run", torch.device("cuda:1")]
    waited.clear()
    seconds_of(lambda: None, "cpu")
    assert waited == []


def test_time_on_a_gpu_is_between_its_own_events(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    order = []

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            order.append("event")

        def elapsed_time(self, other):
            return 5.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: order.append("busy"))
    times = measure.timed_on_device(lambda: order.append("run"), runs=2, warmup=1, device="cuda:1")
    assert times.median == pytest.approx(5e-3)
    assert order == ["run", *["busy", "event", "run", "event"] * 2]


def test_peak_memory_of_a_process_that_measures_more_is_left_empty():
    assert peak_device_bytes(lambda: None, torch.device("cpu")) is None


def test_a_commit_is_clean_if_nothing_but_results_changed(tmp_path, monkeypatch):
    package = tmp_path / "src" / "fwpkm"
    results = tmp_path / "benchmarks" / "results"
    for folder in (package, results):
        folder.mkdir(parents=True)
    (package / "machine.py").write_text("1")
    (results / "rows.csv").write_text("1")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(machine, "__file__", str(package / "machine.py"))
    (results / "rows.csv").write_text("2")
    assert is_clean(describe_machine("cpu")["commit"])
    (package / "machine.py").write_text("2")
    commit = describe_machine("cpu")["commit"]
    assert commit.endswith("+")
    assert not is_clean(commit)


def test_copies_without_a_repository_may_name_their_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("FWPKM_COMMIT", raising=False)
    assert describe_machine("cpu")["commit"] == "unknown"
    assert not is_clean("unknown")
    monkeypatch.setenv("FWPKM_COMMIT", "abc1234")
    assert describe_machine("cpu")["commit"] == "abc1234"
