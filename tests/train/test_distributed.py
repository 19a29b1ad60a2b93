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


def start(world: int, *arguments: str) -> dict[str, Any]:
    """Run the script in `world` processes, as torchrun does, and return what the first one printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = []
    for rank in range(world):
        own = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        env = {**os.environ, **base, **own}
        command = [sys.executable, str(SCRIPT), *arguments]
        started.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate() for process in started]
    assert all(process.returncode == 0 for process in started), "\n".join(err for _, err in outputs)
    return json.loads(outputs[0][0].splitlines()[-1])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    two = start(2, str(folder), "replicate:10", "shard:8", "shard:10", "differ:3")
    one = run("whole", 10, tmp_path_factory.mktemp("one"), Group())
    return one, {**two, "resumed by one": run("replicate", 12, folder, Group())}


@pytest.mark.parametrize("mode", ["replicate:10", "shard:8"])
def test_losses_equal_those_of_one_process(results: Any, mode: str) -> None:
    one, two = results
    losses = two[mode]["losses"]
    assert len(losses) == int(mode.split(":")[1])
    assert losses == pytest.approx(one["losses"][: len(losses)], rel=1e-6)


def test_a_sharded_run_goes_on(results: Any) -> None:
    one, two = results
    assert two["shard:10"]["start"] == 8
    assert two["shard:10"]["losses"] == pytest.approx(one["losses"][8:], rel=1e-6)


def test_one_process_goes_on_where_two_stopped(results: Any) -> None:
    _, two = results
    resumed = two["resumed by one"]
    assert resumed["start"] == 10
    assert len(resumed["losses"]) == 2


def test_processes_with_other_tables_are_told_apart(results: Any) -> None:
    _, two = results
    assert "at the start they differ in blocks.0.memory.initial_keys" in two["differ:3"]["error"]
