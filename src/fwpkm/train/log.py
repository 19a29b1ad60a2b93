"""Where metrics go: the run's folder, a line of progress, TensorBoard, Weights & Biases."""

import importlib
import secrets
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from fwpkm.files import write_text
from fwpkm.train.config import TrainConfig
from fwpkm.train.rundir import RunFolder

_SHOWN = {
    "loss": "loss {:.4f}",
    "stressed_accuracy": "answers {:.1%}",
    "gradient_norm": "norm {:.2f}",
    "lr": "lr {:.2e}",
    "tokens_per_second": "{:,.0f} tokens/s",
}


class Log:
    """Pass metrics on to all places that want them; only the first process has one.

    Args:
        config: Which places these are.
        folder: The run's folder.
        step: Where the run begins or goes on.
        quiet: Show no progress.
    """

    def __init__(self, config: TrainConfig, folder: RunFolder, *, step: int, quiet: bool = False) -> None:
        self.folder, self._quiet = folder, quiet
        self._live = sys.stderr.isatty() and not quiet
        self._memory = ""
        self._board = _tensorboard(folder, step) if config.tensorboard else None
        self._wandb = _wandb(config.wandb_project, folder) if config.wandb_project else None

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            print(file=sys.stderr)
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write numbers of one step."""
        self.folder.append_metrics(kind, step, values)
        numbers = {f"{kind}/{n}": v for n, v in values.items() if isinstance(v, int | float)}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)
        if kind == "memory":
            self._memory = memory_line(values)

    def progress(self, step: int, share: float, values: Mapping[str, float], seconds: float) -> None:
        """Show one line: a live one on a terminal, one after the other elsewhere."""
        if self._quiet:
            return
        left = seconds * (1 - share) / share if share > 0 else 0.0
        cells = [f"step {step} ({share:.0%}, {clock(left)} left)"]
        cells += [text.format(values[name]) for name, text in _SHOWN.items() if name in values]
        text = "  ".join([*cells, self._memory] if self._memory else cells)
        if self._live:
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Show a sentence below what was shown."""
        if not self._quiet:
            print(f"\n{text}" if self._live else text, file=sys.stderr, flush=True)


def memory_line(values: Mapping[str, float]) -> str:
    """Sum the memories' metrics up: mean over layers."""
    cells = []
    for name in ("gate", "slots_used", "collisions", "divergence"):
        found = [v for key, v in values.items() if key.endswith(f".{name}")]
        if found:
            cells.append(f"{name} {sum(found) / len(found):.2f}")
    return "  ".join(cells)


def clock(seconds: float) -> str:
    """Write a time as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _tensorboard(folder: RunFolder, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "train.tensorboard=true needs the package tensorboard: pip install 'fwpkm[train]', or leave it off"
        ) from error
    # What an interrupted run logged after the checkpoint it goes on from is hidden.
    return SummaryWriter(str(folder.path / "tensorboard"), purge_step=step + 1)


def _wandb(project: str, folder: RunFolder) -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError(
            "train.wandb_project needs the package wandb: pip install wandb, or leave it out"
        ) from error
    file = folder.path / "wandb-id.txt"
    if not file.exists():  # a run of its own, that a resumed one goes on with
        write_text(file, f"{secrets.token_hex(8)}\n")
    number = file.read_text(encoding="utf-8").strip()
    return wandb.init(project=project, name=str(folder.path), dir=str(folder.path), resume="allow", id=number)
