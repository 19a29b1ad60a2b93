"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

import json
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fwpkm.files import UNFINISHED, write_json, write_tensors
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import load_weights
from fwpkm.train.carried import load_carried, save_carried
from fwpkm.train.durable import (
    UnreadableError,
    begin_folder,
    check_folder,
    finish_folder,
    remove_folder,
    remove_unfinished,
)
from fwpkm.train.optimizer import Optimizer
from fwpkm.train.parallel import Group
from fwpkm.train.sharding import place_like, whole, whole_shape

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step."""

    step: int = 0
    """Steps so far, skipped ones included."""
    tokens: int = 0
    """Tokens read so far."""
    seconds: float = 0.0
    """Time of training so far, checkpoints and validation not counted."""
    skipped_in_a_row: int = 0
    """Steps skipped since the last one that was taken."""
    validated: int = 0
    """The step after which the loss was last validated."""
    warned: tuple[str, ...] = ()
    """Warnings that were given, each once a run."""


class Checkpoints:
    """A run's checkpoints: the newest ones are kept, and only whole ones are ever read.

    Args:
        folder: Where they are, one folder each.
        keep: How many stay.
        group: The processes, of which the first writes what all have in common.
    """

    def __init__(self, folder: Path, keep: int, group: Group) -> None:
        self.folder, self.keep, self.group = folder, keep, group
        self.damaged: list[Path] = []
        """Checkpoints that `newest_whole` passed over: they count for nothing, and may be written again."""

    def save(
        self,
        model: Decoder,
        optimizer: Optimizer,
        progress: Progress,
        *,
        data: Mapping[str, Any],
        carried: list[DecoderCache | None],
    ) -> Path:
        """Write a checkpoint; all processes must call it.

        Raises:
            OSError: On every process if any of them could not write; the older checkpoints are still there.
        """
        path = self.folder / f"step-{progress.step:08d}"
        if path in self.damaged:
            self._together(lambda: remove_folder(path), first_only=True)
            self.damaged.remove(path)
        if path.exists():
            return path
        aside = self._together(lambda: begin_folder(path), first_only=True)
        aside = path.with_name(f"{path.name}{UNFINISHED}") if aside is None else aside
        weights, state = whole_weights(model), _whole_state(optimizer)
        trainer = {"progress": vars(progress), "data": dict(data), "processes": self.group.world}

        def write() -> None:
            save_carried(aside, self.group.rank, carried)
            write_tensors(aside / f"random-{self.group.rank}.safetensors", _random_states())
            if self.group.is_first:
                write_tensors(aside / "model.safetensors", weights)
                write_tensors(aside / "optimizer.safetensors", state)
                write_json(aside / "trainer.json", trainer)

        self._together(write)
        self._together(lambda: finish_folder(aside, path), first_only=True)
        self._together(self._remove_old, first_only=True)
        return path

    def _together(self, do: Callable[[], Any], *, first_only: bool = False) -> Any:
        """Do something on all processes or the first one; if one of them fails, all do."""
        result, problem = None, None
        try:
            result = do() if self.group.is_first or not first_only else None
        except OSError as error:
            problem = error
        failed = [text for text in self.group.gather(None if problem is None else str(problem)) if text]
        if failed:
            if self.group.is_first:
                remove_unfinished(self.folder)
            older = "the older ones are whole: " if len(self.paths()) > len(self.damaged) else ""
            raise OSError(
                f"a checkpoint could not be written: {failed[0]}; {older}make room in {self.folder} and go on with "
                "--resume"
            ) from problem
        return result

    def _remove_old(self) -> None:
        whole = [path for path in self.paths() if path not in self.damaged]
        for path in whole[: -self.keep]:
            remove_folder(path)

    def paths(self) -> list[Path]:
        """List the checkpoints that have their final name, oldest first."""
        return sorted(p for p in self.folder.glob("step-*") if p.name.removeprefix("step-").isdigit())

    def newest_whole(self) -> Path | None:
        """Return the newest checkpoint whose files are what was written, naming the others in a warning."""
        found, self.damaged = self.group.gather(self._find() if self.group.is_first else (None, []))[0]
        return found

    def _find(self) -> tuple[Path | None, list[Path]]:
        damaged = []
        for path in reversed(self.paths()):
            try:
                check_folder(path)
            except UnreadableError as error:
                logger.warning("checkpoint passed over: %s", error)
                damaged.append(path)
            else:
                return path, damaged
        return None, damaged

    def load(
        self, path: Path, model: Decoder, optimizer: Optimizer, *, parts: int
    ) -> tuple[Progress, dict[str, Any], list[DecoderCache | None]]:
        """Bring model, optimizer and random numbers to where a checkpoint was written.

        Returns:
            The progress, the data's position, and what each part's streams had seen.
        """
        trainer = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
        progress = Progress(**{**trainer["progress"], "warned": tuple(trainer["progress"]["warned"])})
        _load_whole(model, load_file(path / "model.safetensors"))
        optimizer.load(load_file(path / "optimizer.safetensors"))
        if trainer["processes"] != self.group.world:
            logger.warning(
                "%s was written by %d processes and goes on with %d: sums are rounded in another order, so losses "
                "agree to rounding only; carried memories, if any, start afresh",
                path, trainer["processes"], self.group.world,
            )  # fmt: skip
            return progress, trainer["data"], [None] * parts
        _set_random_states(load_file(path / f"random-{self.group.rank}.safetensors"))
        return progress, trainer["data"], load_carried(path, self.group.rank, model, parts)


def whole_weights(model: Decoder) -> dict[str, Tensor]:
    """Collect the model's state, sharded weights put together; everybody must call it.

    Tables that are sharded by rows are whole on the first process, and without rows elsewhere.
    """
    return {name: _whole(x) for name, x in model.state_dict(keep_vars=True).items()}


def _load_whole(model: Decoder, weights: Mapping[str, Tensor]) -> None:
    """Give a model, sharded or not, the state that `whole_weights` collected."""
    own = model.state_dict(keep_vars=True)
    fits = {n: n in own and whole_shape(own[n]) == tuple(x.shape) for n, x in weights.items()}
    load_weights(model, {n: place_like(x, own[n]) if fits[n] else x for n, x in weights.items()})


def _whole_state(optimizer: Optimizer) -> dict[str, Tensor]:
    by_name = {name: p for p, name in optimizer.names.items()}
    return {name: _whole(x, by_name[name.rsplit("/", 1)[0]]) for name, _, _, x in optimizer.tensors()}


def _whole(x: Tensor, like: Tensor | None = None) -> Tensor:
    return whole(x, like).detach().cpu().contiguous()


def _random_states() -> dict[str, Tensor]:
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_more": torch.tensor([version, float("nan") if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(legacy[1].astype(np.int64)),
        "numpy_more": torch.tensor([legacy[2], legacy[3], legacy[4]], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    version, gauss = states["python_more"].tolist()
    random.setstate((int(version), tuple(states["python"].tolist()), None if gauss != gauss else gauss))
    place, has_gauss, cached = states["numpy_more"].tolist()
    words = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, int(place), int(has_gauss), cached))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
