"""Two processes are as good as one: replicated, sharded, resumed, and told apart when they differ."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from distributed_losses import run

from fwpkm.train.parallel import Group

SCRIPT = Path(__file__).with_name("distributed_losses.py")


def start(folder: Path, world: int) -> dict[str, Any]:
    """Run the script in `world` processes, as torchrun does, and return what the first one printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = []
    for rank in range(world):
        env = {**base, "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        command = [sys.executable, str(SCRIPT), str(folder)]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=env, text=True, **pipes))
    outputs = [process.communicate() for process in started]
    assert all(process.returncode == 0 for process in started), "\n".join(err for _, err in outputs)
    found: dict[str, Any] = json.loads(outputs[0][0].splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("two")
    found = start(folder, 2)
    found["whole"] = run("whole", tmp_path_factory.mktemp("one"), Group())
    found["resumed by one"] = run("replicate", folder, Group())
    return found


@pytest.mark.parametrize("mode", ["replicate", "shard"])
def test_losses_equal_those_of_one_process(results: dict[str, Any], mode: str) -> None:
    assert len(results["whole"]["losses"]) == 4
    assert results[mode]["losses"] == pytest.approx(results["whole"]["losses"], rel=1e-9)


@pytest.mark.parametrize("mode", ["replicate", "shard"])
def test_two_processes_go_on_bit_by_bit(results: dict[str, Any], mode: str) -> None:
    resumed = results[f"{mode} resumed"]
    assert resumed["start"] == 2
    assert resumed["losses"] == results[mode]["losses"][2:]
    assert resumed["hash"] == results[mode]["hash"]


def test_one_process_goes_on_where_two_stopped(results: dict[str, Any]) -> None:
    resumed = results["resumed by one"]
    assert resumed["start"] == 2
    assert resumed["losses"] == pytest.approx(results["whole"]["losses"][2:], rel=1e-9)


def test_processes_with_other_tables_are_told_apart(results: dict[str, Any]) -> None:
    assert "at the start they differ in blocks.0.memory.initial_keys" in results["differ"]["error"]
