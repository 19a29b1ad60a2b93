"""The kill test: SIGKILL at random moments, and whether the resumed run is the undisturbed one."""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fwpkm.train.rundir import METRICS, RunFolder


@dataclass(frozen=True, kw_only=True)
class KilledRun:
    """What became of one run."""

    kills: int
    """How often it was killed."""
    equal: bool
    """Whether its losses are those of the undisturbed run, all of them, bit by bit."""
    passed_over: int
    """Checkpoints that were found unreadable while resuming."""
    during_save: int
    """Kills that hit while a checkpoint was being written."""


def read_losses(folder: Path) -> list[tuple[int, float]]:
    """Return the step and loss of every line of training metrics."""
    lines = RunFolder(folder).read_metrics("train")
    return [(line["step"], line["objective"]) for line in lines]


def run_to_end(command: Sequence[str], folder: Path) -> str:
    """Run or resume a training command until it ends by itself; return what it said.

    Raises:
        RuntimeError: If it fails.
    """
    done = subprocess.run([*command, "--out", str(folder), "--resume"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"run_to_end: training in {folder} failed: {done.stderr[-2000:]}")
    return done.stderr


def run_until_killed(command: Sequence[str], folder: Path, *, step: int, pause: float) -> tuple[bool, str]:
    """Run or resume a training command and send SIGKILL `pause` seconds after it has written down `step` steps.

    Returns:
        Whether it was killed before its end, and what it had said.
    """
    process = subprocess.Popen(
        [*command, "--out", str(folder), "--resume"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and _steps_written(folder) < step:
        time.sleep(0.002)
    time.sleep(pause)
    process.kill()
    said = process.communicate()[1]
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"run_until_killed: training in {folder} failed: {said[-2000:]}")
    return process.returncode != 0, said


def _steps_written(folder: Path) -> int:
    metrics = folder / METRICS
    return metrics.read_bytes().count(b'"kind": "train"') if metrics.exists() else 0


def run_killed(
    command: Sequence[str],
    folder: Path,
    expected: list[tuple[int, float]],
    *,
    kills: int,
    draw: random.Random,
) -> KilledRun:
    """Kill a run at `kills` random moments, one behind the other, then let it end."""
    hit, passed_over, during_save = 0, 0, 0
    for step in sorted(draw.randrange(len(expected)) for _ in range(kills)):
        killed, said = run_until_killed(command, folder, step=step, pause=draw.uniform(0, 0.05))
        hit += killed
        during_save += bool(list(folder.glob("checkpoints/*.unfinished")))
        passed_over += said.count("passed over")
    passed_over += run_to_end(command, folder).count("passed over")
    equal = read_losses(folder) == expected
    return KilledRun(kills=hit, equal=equal, passed_over=passed_over, during_save=during_save)


def training_command(recipe: Path) -> list[str]:
    """Return the command that trains `recipe`."""
    return [sys.executable, "-m", "fwpkm.cli.main", "train", str(recipe), "--quiet"]


def main() -> int:
    """Kill as many runs as asked for and print what became of them; 0 if all losses are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "recipe", type=Path, help="a recipe that trains for some seconds, with frequent checkpoints"
    )
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--kills", type=int, default=1, help="kills of each run")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder for all runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    command = training_command(options.recipe)
    run_to_end(command, options.out / "undisturbed")
    expected = read_losses(options.out / "undisturbed")
    print(f"undisturbed: {len(expected)} steps", flush=True)
    draw, found = random.Random(options.seed), []
    for i in range(options.runs):
        folder = options.out / f"run-{i}"
        found.append(run_killed(command, folder, expected, kills=options.kills, draw=draw))
        print(f"run {i}: {found[-1]}", flush=True)
        shutil.rmtree(folder)
    print(
        f"{options.runs} runs, {sum(f.kills for f in found)} kills, "
        f"{sum(f.during_save for f in found)} while writing a checkpoint, "
        f"{sum(f.passed_over for f in found)} unreadable checkpoints passed over, "
        f"{sum(f.equal for f in found)} runs with equal losses"
    )
    return 0 if all(f.equal for f in found) else 1


if __name__ == "__main__":
    sys.exit(main())
