"""The kill test: SIGKILL at random moments, and whether the resumed run is the undisturbed one."""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fwpkm.train.rundir import METRICS


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
    lines = (json.loads(text) for text in (folder / METRICS).read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["objective"]) for line in lines if line["kind"] == "train"]


def run_undisturbed(command: Sequence[str], folder: Path) -> tuple[list[tuple[int, float]], float]:
    """Run a training command to its end; return its losses, and the seconds that it took.

    Raises:
        RuntimeError: If it fails.
    """
    began = time.monotonic()
    done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"run_undisturbed: {' '.join(command)} failed: {done.stderr[-2000:]}")
    return read_losses(folder), time.monotonic() - began


def run_killed(
    command: Sequence[str],
    folder: Path,
    expected: list[tuple[int, float]],
    *,
    longest: float,
    kills: int,
    draw: random.Random,
) -> KilledRun:
    """Kill a run `kills` times, each time at a moment of up to `longest` seconds, then let it end.

    Raises:
        RuntimeError: If a resumed run fails.
    """
    hit, passed_over, during_save = 0, 0, 0
    for attempt in range(kills + 1):
        last = attempt == kills
        process = subprocess.Popen(
            [*command, "--out", str(folder), "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, err = process.communicate(timeout=None if last else draw.uniform(0.2, 1.0) * longest)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
            hit += 1
            during_save += bool(list(folder.glob("checkpoints/*.unfinished")))
        passed_over += err.count("passed over")
        if process.returncode not in (0, -9):
            raise RuntimeError(f"run_killed: resuming in {folder} failed: {err[-2000:]}")
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
    expected, seconds = run_undisturbed(command, options.out / "undisturbed")
    print(f"undisturbed: {len(expected)} steps in {seconds:.1f} s", flush=True)
    draw, found = random.Random(options.seed), []
    for i in range(options.runs):
        folder = options.out / f"run-{i}"
        found.append(run_killed(command, folder, expected, longest=seconds, kills=options.kills, draw=draw))
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
