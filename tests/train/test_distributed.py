"""Several processes are as good as one: replicated, sharded, resumed, stopped, and told apart when they differ."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_losses import MODES, SUITES, run

from fwpkm.train.parallel import Group

SCRIPT = Path(__file__).with_name("distributed_losses.py")
LONG = SUITES["long"]
SAME_RUN = {
    "replicate": "replicate",
    "shard": "replicate",
    "tables": "replicate",
    "other tables": "other tables",
    "carried": "carried",
    "carried all": "carried",
}
"""What one process does instead of each mode."""


def start(folder: Path, world: int, suite: str, device: str = "cpu") -> dict[str, Any]:
    """Run a suite in `world` processes, as torchrun does, and return what the first one printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = []
    for rank in range(world):
        env = {**base, "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        command = [sys.executable, str(SCRIPT), str(folder), device, suite]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=env, text=True, **pipes))
    outputs = [process.communicate() for process in started]
    assert all(process.returncode == 0 for process in started), "\n".join(err for _, err in outputs)
    found: dict[str, Any] = json.loads(outputs[0][0].splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return start(folder, 2, "short")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    names = sorted({*SAME_RUN.values()})
    return {name: run(name, tmp_path_factory.mktemp("one"), Group())["losses"] for name in names}


@pytest.mark.parametrize("mode", SAME_RUN)
def test_losses_equal_those_of_one_process(
    results: dict[str, Any], whole: dict[str, list[float]], mode: str
) -> None:
    assert len(whole[SAME_RUN[mode]]) == MODES[mode].steps
    assert results[mode]["losses"] == pytest.approx(whole[SAME_RUN[mode]], rel=1e-9)


@pytest.mark.parametrize("mode", SAME_RUN)
def test_two_processes_go_on_bit_by_bit(results: dict[str, Any], mode: str) -> None:
    resumed = results[f"{mode} resumed"]
    assert resumed["start"] == MODES[mode].steps - 2
    assert resumed["losses"] == results[mode]["losses"][-2:]
    assert resumed["hash"] == results[mode]["hash"]


def test_tables_are_shared_out(results: dict[str, Any]) -> None:
    held = {mode: results[mode]["held"] for mode in SAME_RUN}
    assert held == {**dict.fromkeys(SAME_RUN, 0), "tables": 96, "other tables": 96, "carried all": 96}


@pytest.mark.parametrize("mode", ["replicate", "shard", "tables", "other tables"])
def test_one_process_goes_on_where_two_stopped(
    results: dict[str, Any],
    whole: dict[str, list[float]],
    folder: Path,
    mode: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    resumed = run(mode, folder, Group())
    assert resumed["start"] == 2
    assert resumed["losses"] == pytest.approx(whole[SAME_RUN[mode]][2:], rel=1e-9)
    (message,) = [r.getMessage() for r in caplog.records if "goes on with" in r.getMessage()]
    assert "written by 2 processes and goes on with 1" in message
    assert "rounded in another order, so losses agree to rounding only" in message
    assert "carried memories, if any, start afresh" in message


def test_processes_with_other_tables_are_told_apart(results: dict[str, Any]) -> None:
    assert results["differ"]["ends"] == ["failed", "failed"]
    for error in results["differ"]["errors"]:
        assert "at the start they differ in blocks.0.memory.initial_keys" in error


def test_rows_that_belong_to_two_processes_or_none_are_noticed(results: dict[str, Any]) -> None:
    assert results["two owners"]["ends"] == ["failed", "failed"]
    for error in results["two owners"]["errors"]:
        assert "every row of blocks.0.memory.initial_values must belong to one process" in error
        assert "at the start 64 of 64 do not" in error


def test_one_process_that_cannot_write_ends_all_and_leaves_older_checkpoints(results: dict[str, Any]) -> None:
    assert results["disk full"]["ends"] == ["failed", "failed"]
    assert results["disk full"]["resumed"] == 0
    for error in results["disk full"]["errors"]:
        assert "No space left on device; the older ones are whole: make room in" in error


def test_a_signal_to_one_process_ends_all_after_the_same_step(results: dict[str, Any]) -> None:
    assert results["signal"] == {"ends": ["stopped", "stopped"], "errors": ["", ""], "resumed": 1}


def test_fifty_steps_in_float32_have_the_losses_of_one_process(tmp_path: Path) -> None:
    found = start(tmp_path / "two", 2, "long")
    expected = run("long", tmp_path / "one", Group())["losses"]
    assert len(expected) == 50
    assert expected[-1] < expected[0] - 0.1, "the model must have moved"
    for mode in LONG:
        assert found[mode]["losses"] == pytest.approx(expected, rel=1e-6), mode


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs two GPUs")
def test_two_gpus_have_the_losses_of_one_process(tmp_path: Path, whole: dict[str, list[float]]) -> None:
    found = start(tmp_path, 2, "short", "cuda")
    for mode in SAME_RUN:
        assert found[mode]["losses"] == pytest.approx(whole[SAME_RUN[mode]], rel=1e-6), mode
        assert found[f"{mode} resumed"]["losses"] == pytest.approx(found[mode]["losses"][-2:], rel=1e-6)
