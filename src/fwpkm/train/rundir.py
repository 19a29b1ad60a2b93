"""A run's folder: what was run, where, and what came out."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fwpkm.files import write_json, write_text, writing
from fwpkm.machine import describe_machine
from fwpkm.recipe import Recipe, read_recipe
from fwpkm.train.durable import remove_unfinished

METRICS = "metrics.jsonl"
"""One JSON object a line: `kind` (train, validation, memory), `step`, and numbers."""
_PACKAGES = ("torch", "numpy", "safetensors", "jaxtyping", "transformers", "triton", "flash-linear-attention")


class RunFolder:
    """recipe.toml, env.json, metrics.jsonl, checkpoints/step-N and, at the end, model/ with the trained model.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / METRICS
        self.model = path / "model"

    def begin(self, recipe: Recipe) -> None:
        """Write down what is run and where; refuses a folder that holds a run.

        Raises:
            FileExistsError: If it does.
        """
        if self.holds_run():
            raise FileExistsError(
                f"train: {self.path} holds a run already; go on with it by --resume, or choose another --out"
            )
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "env.json", describe_environment())
        write_text(self.path / "recipe.toml", recipe.to_toml())

    def holds_run(self) -> bool:
        """Whether a run has come as far as a step or a checkpoint here."""
        begun = (self.path / "recipe.toml").exists()
        return begun and (self.metrics.exists() or any(self.checkpoints.glob("step-*")))

    def check_same_model(self, recipe: Recipe) -> None:
        """Refuse to go on with another model.

        Raises:
            ValueError: With all fields that differ.
        """
        before = read_recipe(self.path / "recipe.toml").network.to_dict()
        now = recipe.network.to_dict()
        names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
        if names:
            changes = "; ".join(f"{n} was {before.get(n)!r} and is {now.get(n)!r}" for n in names)
            raise ValueError(
                f"train: the run in {self.path} is of another model: {changes}. Resume with its own recipe, "
                f"{self.path / 'recipe.toml'}, or choose another --out"
            )

    def resume(self, recipe: Recipe, step: int) -> None:
        """Clear away what a stopped writer left, and all metrics after `step`."""
        remove_unfinished(self.path)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.checkpoints)
        write_text(self.path / "recipe.toml", recipe.to_toml())
        kept = [line for line in self._metric_lines() if line["step"] <= step]
        if kept or self.metrics.exists():
            write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def read_metrics(self, kind: str) -> list[dict[str, Any]]:
        """Return the metrics of one kind, oldest first."""
        return [line for line in self._metric_lines() if line["kind"] == kind]

    def append_metrics(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add a line; what a sudden end leaves of it is dropped on resuming."""
        with writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")

    def _metric_lines(self) -> list[dict[str, Any]]:
        if not self.metrics.exists():
            return []
        lines = []
        for text in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break  # written halfway when the process ended
        return lines


def describe_environment() -> dict[str, Any]:
    """Return what a result depends on besides its recipe."""
    return {
        **describe_machine(),
        "platform": platform.platform(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "cuda": torch.version.cuda,
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
