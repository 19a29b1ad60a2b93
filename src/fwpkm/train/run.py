"""A whole training run, from a recipe to a folder with the trained model."""

import logging
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import save_model
from fwpkm.nested import to_mapping
from fwpkm.recipe import Recipe
from fwpkm.train.checkpoint import Checkpoints, whole_weights
from fwpkm.train.config import TrainConfig
from fwpkm.train.data import DataConfig, TrainingData, open_data
from fwpkm.train.durable import begin_folder, finish_folder
from fwpkm.train.log import Log
from fwpkm.train.loop import Outcome, Trainer
from fwpkm.train.parallel import Group, process_group
from fwpkm.train.rundir import RunFolder
from fwpkm.train.sharding import shard
from fwpkm.train.stop import stop_on_signals

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recipe's sections for training, read and checked together."""

    recipe: Recipe
    model: DecoderConfig
    data: DataConfig
    train: TrainConfig

    @classmethod
    def of(cls, recipe: Recipe) -> "Run":
        """Read the sections.

        Raises:
            ValueError: With what is wrong, section and file.
        """
        return cls(
            recipe=recipe,
            model=recipe.model,
            data=recipe.section("data", DataConfig),
            train=recipe.section("train", TrainConfig),
        )

    def resolved(self) -> Recipe:
        """Return the recipe with every default spelt out."""
        own = {"model": self.model.to_dict(), "data": to_mapping(self.data), "train": to_mapping(self.train)}
        return replace(self.recipe, sections={**self.recipe.sections, **own})


def train(recipe: Recipe, out: str | Path, *, resume: bool = False, quiet: bool = False) -> Outcome:
    """Train what a recipe says, and write everything about it into a folder.

    Under torchrun all processes call this. Ends early, in a state that `resume` goes on from, at SIGTERM, SIGINT
    and `train.max_minutes`.

    Args:
        recipe: With the sections model, data and train.
        out: The folder: recipe.toml, env.json, metrics.jsonl, checkpoints, and at the end model.
        resume: Go on from the newest whole checkpoint in `out`, or start if there is none.
        quiet: Show no progress.

    Raises:
        FileExistsError: If `out` holds a run, unless resumed.
        ValueError: If recipe and data do not fit each other, or the run in `out` is of another model.
        TooManySkippedError: If losses or gradients stay non-finite.
        RuntimeError: If processes differ, or memory runs out.
    """
    run, folder = Run.of(recipe), RunFolder(Path(out))
    with ExitStack() as stack:
        device = pick_device(run.train.device)
        group = stack.enter_context(process_group(device))
        stop = stack.enter_context(stop_on_signals())
        data = open_data(run.data, group)
        _check_vocabulary(run.model, data)
        _prepare(folder, run, group, resume=resume)
        trainer = make_trainer(run, folder, data, group, device)
        progress = trainer.resume()
        if group.is_first:
            folder.resume(run.resolved(), progress.step)
            trainer.log = stack.enter_context(Log(run.train, folder, step=progress.step, quiet=quiet))
        outcome = trainer.run(stop)
        if outcome.end != "stopped":
            _export(trainer, data, folder, group)
    return outcome


def pick_device(name: str) -> torch.device:
    """Return the device that a run computes on; "auto" is this process's GPU if there is one.

    Raises:
        ValueError: If torch knows no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        logger.info("device auto -> %s", name)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"train.device: must be a torch device or 'auto', got {name!r} ({error})") from error
    return device


def make_trainer(
    run: Run, folder: RunFolder, data: TrainingData, group: Group, device: torch.device
) -> Trainer:
    """Build the model from its seed, alike on every process, and all that trains it."""
    torch.manual_seed(run.train.seed)
    model = Decoder(run.model).to(device)
    model.gradient_checkpointing = run.train.gradient_checkpointing
    if run.train.parallel == "shard":
        shard(model, group.world, device)
    checkpoints = Checkpoints(folder.checkpoints, run.train.checkpoints.keep, group)
    return Trainer(model, data.train, run.train, checkpoints, group=group, validation=data.validation)


def _check_vocabulary(model: DecoderConfig, data: TrainingData) -> None:
    if model.vocab_size < data.tokenizer.vocab_size:
        raise ValueError(
            f"train: model.vocab_size must be at least the tokenizer's {data.tokenizer.vocab_size} "
            f"({data.tokenizer.name}), got {model.vocab_size}; set model.vocab_size={data.tokenizer.vocab_size}"
        )


def _prepare(folder: RunFolder, run: Run, group: Group, *, resume: bool) -> None:
    """Let the first process begin the folder, and tell all if that fails."""
    problem = None
    if group.is_first:
        try:
            if resume and folder.holds_run():
                folder.check_same_model(run.recipe)
            else:
                folder.begin(run.resolved())
        except (OSError, ValueError) as error:
            problem = error
    if problem := group.gather(problem)[0]:
        raise problem


def _export(trainer: Trainer, data: TrainingData, folder: RunFolder, group: Group) -> None:
    """Write the trained model, whole or not at all; an older one is replaced."""
    weights = whole_weights(trainer.model)
    if not group.is_first:
        return
    aside = begin_folder(folder.model)
    save_model(aside, trainer.model, weights)
    data.tokenizer.save(aside)
    shutil.rmtree(folder.model, ignore_errors=True)
    finish_folder(aside, folder.model)
