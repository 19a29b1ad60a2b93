"""A whole training run, from a recipe to a folder with the trained model."""

import logging
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fwpkm.devices import check_device
from fwpkm.models.base_config import BaseConfig
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import save_model
from fwpkm.nested import to_mapping
from fwpkm.ops.blocks import keep_freed_memory
from fwpkm.recipe import Recipe
from fwpkm.train.checkpoint import Checkpoints, whole_weights
from fwpkm.train.config import TrainConfig
from fwpkm.train.data import DataConfig, TrainingData, open_data
from fwpkm.train.durable import begin_folder, finish_folder
from fwpkm.train.log import Log
from fwpkm.train.loop import Outcome, Trainer
from fwpkm.train.parallel import Group, process_group
from fwpkm.train.row_shards import shard_tables
from fwpkm.train.rundir import RunFolder
from fwpkm.train.sharding import shard
from fwpkm.train.stop import stop_on_signals

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recipe's sections for training, read and checked together."""

    recipe: Recipe
    network: DecoderConfig | BaseConfig
    data: DataConfig
    train: TrainConfig

    @classmethod
    def of(cls, recipe: Recipe) -> "Run":
        """Read the sections.

        Raises:
            ValueError: With what is wrong, section and file.
        """
        run = cls(
            recipe=recipe,
            network=recipe.network,
            data=recipe.section("data", DataConfig),
            train=recipe.section("train", TrainConfig),
        )
        run._check_base()
        run._check_carry()
        return run

    @property
    def model(self) -> DecoderConfig:
        """The decoder, if that is what is trained.

        Raises:
            ValueError: If it is an existing model.
        """
        return self.recipe.model

    def resolved(self) -> Recipe:
        """Return the recipe with every default spelt out."""
        name = "base" if isinstance(self.network, BaseConfig) else "model"
        own = {name: self.network.to_dict(), "data": to_mapping(self.data), "train": to_mapping(self.train)}
        return replace(self.recipe, sections={**self.recipe.sections, **own})

    def _check_carry(self) -> None:
        """Refuse memories that are to be carried through documents that no sequence goes on with."""
        if self.train.carry == "document" and self.data.layout != "carried":
            raise ValueError(
                f"{self.recipe.path}: train.carry='document' carries memories from each sequence to the one that "
                f"continues it, which data.layout='carried' alone has, got data.layout={self.data.layout!r}"
            )
        if self.train.carry == "document" and self.train.parallel == "shard" and self._learns_fast_weights():
            raise ValueError(
                f"{self.recipe.path}: train.parallel='shard' leaves no process the fast weights that LaCT and FwMLP "
                "learn to begin with, which train.carry='document' needs wherever a document ends; set "
                "train.parallel='replicate'"
            )

    def _learns_fast_weights(self) -> bool:
        if isinstance(self.network, BaseConfig):
            return False
        mlp = self.network.fwmlp
        return "lact" in self.network.mixers or (mlp is not None and mlp.initial_weights == "learned")

    def _check_base(self) -> None:
        """Refuse what needs more of a model than transformers' ones give."""
        if not isinstance(self.network, BaseConfig):
            return
        train = self.train
        wanted = (
            ("carry", train.carry, "sequence"),
            ("truncate", train.truncate, None),
            ("parallel", train.parallel, "replicate"),
            ("compile", train.compile, False),
        )
        problems = [
            f"train.{name} must be {needed!r}, got {given!r}"
            for name, given, needed in wanted
            if given != needed
        ]
        if problems:
            raise ValueError(
                f"{self.recipe.path}: with [base] sequences are read whole; {'; '.join(problems)}"
            )


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
        ValueError: If recipe and data do not fit each other, the run in `out` is of another model, or the machine
            has no such device.
        TooManySkippedError: If losses or gradients stay non-finite.
        RuntimeError: If processes differ, or memory runs out.
    """
    run, folder = Run.of(recipe), RunFolder(Path(out))
    with ExitStack() as stack:
        device = pick_device(run.train.device)
        check_device("train.device", device)
        if device.type == "cpu":
            keep_freed_memory()
        group = stack.enter_context(process_group(device))
        stop = stack.enter_context(stop_on_signals())
        data = open_data(run.data, group)
        _check_vocabulary(run.network, data)
        _prepare(folder, run, group, resume=resume)
        trainer = make_trainer(run, folder, data, group, device)
        _check_embeddings(trainer.model, data)
        progress = trainer.resume()
        if group.is_first:
            folder.resume(run.resolved(), progress.step)
            trainer.log = stack.enter_context(Log(run.train, folder, step=progress.step, quiet=quiet))
        outcome = trainer.run(stop)
        if outcome.end != "stopped":
            _export(trainer, data, folder, group)
    return outcome


def pick_device(name: str) -> torch.device:
    """Return the device that a run computes on; "auto" is a GPU if there is one, "cuda" the one of this process.

    Raises:
        ValueError: If torch knows no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        logger.info("device auto -> %s", name)
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"train.device: must be a torch device or 'auto', got {name!r} ({error})") from error


def make_trainer(
    run: Run, folder: RunFolder, data: TrainingData, group: Group, device: torch.device
) -> Trainer:
    """Build the model from its seed, alike on every process, and all that trains it."""
    torch.manual_seed(run.train.seed)
    model = make_model(run.network).to(device)
    model.gradient_checkpointing = run.train.gradient_checkpointing
    if run.train.shard_tables:
        shard_tables(model, group.rank, group.world)
    if run.train.parallel == "shard":
        shard(model, group.world, device)
    if run.train.compile:
        model.compile_blocks()
    checkpoints = Checkpoints(folder.checkpoints, run.train.checkpoints.keep, group)
    return Trainer(model, data.train, run.train, checkpoints, group=group, validation=data.validation)


def make_model(config: DecoderConfig | BaseConfig) -> Decoder:
    """Draw a decoder's weights, or load a base and draw its memories'; torch's seed decides."""
    if isinstance(config, DecoderConfig):
        return Decoder(config)
    from fwpkm.models.attach.folder import make_base_decoder  # transformers is an extra

    return make_base_decoder(config)


def _check_vocabulary(model: DecoderConfig | BaseConfig, data: TrainingData) -> None:
    if isinstance(model, DecoderConfig) and model.vocab_size < data.tokenizer.vocab_size:
        raise ValueError(
            f"train: model.vocab_size must be at least the tokenizer's {data.tokenizer.vocab_size} "
            f"({data.tokenizer.name}), got {model.vocab_size}; set model.vocab_size={data.tokenizer.vocab_size}"
        )


def _check_embeddings(model: Decoder, data: TrainingData) -> None:
    if (rows := model.embed.weight.shape[0]) < data.tokenizer.vocab_size:
        raise ValueError(
            f"train: the base must have at least as many embeddings as the tokenizer has ids, got {rows} and "
            f"{data.tokenizer.vocab_size} ({data.tokenizer.name}); build the corpus with the base's own tokenizer"
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
    config: object = trainer.model.config
    if isinstance(config, BaseConfig):
        from fwpkm.models.attach.folder import save_base_decoder

        save_base_decoder(aside, trainer.model)
    else:
        save_model(aside, trainer.model, weights)
    data.tokenizer.save(aside)
    shutil.rmtree(folder.model, ignore_errors=True)
    finish_folder(aside, folder.model)
