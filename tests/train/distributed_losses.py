"""Run by test_distributed.py, once per process: what tiny runs of every mode come to, as one JSON line.

python distributed_losses.py FOLDER DEVICE SUITE
"""

import json
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from fwpkm.data.batches import BatchSource, CarriedBatches, SequenceBatches
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.sequences import PackedSequences
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system
from fwpkm.train.checkpoint import Checkpoints, whole_weights
from fwpkm.train.config import CheckpointConfig, TrainConfig
from fwpkm.train.loop import Trainer
from fwpkm.train.parallel import Group, process_group, tensor_hash
from fwpkm.train.row_shards import shard_tables, share_of
from fwpkm.train.run import pick_device
from fwpkm.train.sharding import shard
from fwpkm.train.stop import StopRequest

PKM = {"num_subkeys": 8, "key_dim": 8, "value_dim": 16, "num_heads": 2, "topk": 3}


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to train the same model on the same batches."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Of `TrainConfig`."""
    sparse: bool = True
    """Whether the PKM's table has sparse gradients."""
    base_sparse: bool = False
    """Whether the FwPKM's base tables have."""
    steps: int = 4
    seq_len: int = 16
    watch: int | None = 2
    """Steps between validations, and between looks at the memories."""
    init: float = 0.4
    """Of weights. Large ones set logits far apart, and make of each rounding error a large one within some steps."""
    dtype: torch.dtype = torch.float64
    """float64, as rounding must not hide what is wrong."""


TABLES = {"shard_tables": True}
CARRIED = {"carry": "document", "accumulate": 1, "truncate": 9}
ALL = {**TABLES, "parallel": "shard", "gradient_checkpointing": True}
LONG = {"steps": 50, "dtype": torch.float32, "seq_len": 8, "watch": None, "init": 0.05}
MODES = {
    "replicate": Mode(),
    "shard": Mode(settings={"parallel": "shard"}),
    "tables": Mode(settings=TABLES),
    "other tables": Mode(settings=TABLES, sparse=False, base_sparse=True),
    "carried": Mode(settings=CARRIED, steps=8),
    "carried all": Mode(settings={**CARRIED, **ALL}, steps=8),
    "long": Mode(**LONG),
    "long shard": Mode(settings={"parallel": "shard"}, **LONG),
    "long tables": Mode(settings=TABLES, **LONG),
    "long all": Mode(settings=ALL, **LONG),
}
SUITES = {
    "short": [name for name in MODES if not name.startswith("long")],
    "long": [name for name in MODES if name.startswith("long")],
}


class Kept:
    """A log that keeps losses only."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        if kind == "train":
            self.losses.append(values["objective"])

    def progress(self, *args: Any) -> None: ...

    def say(self, text: str) -> None: ...


def make_source(carry: str, group: Group, seq_len: int = 16) -> BatchSource:
    draw = torch.Generator().manual_seed(0)
    tokens = [torch.randint(39, (45 + 5 * i,), generator=draw).numpy() for i in range(10)]
    documents = TokenDocuments.from_tokens(tokens, eos_id=39)
    share = {"batch_size": 4, "rank": group.rank, "world_size": group.world}
    if carry == "document":
        return CarriedBatches(documents, seq_len=seq_len, **share)
    return SequenceBatches(PackedSequences(documents, seq_len=seq_len), **share)


def make_trainer(mode: Mode, folder: Path, group: Group, device: torch.device) -> Trainer:
    torch.manual_seed(0)
    system = make_system("mixed", pkm={**PKM, "sparse_grad": mode.sparse}, initializer_range=mode.init)
    assert system.fwpkm is not None
    system = replace(system, fwpkm=replace(system.fwpkm, sparse_grad=mode.base_sparse))
    config = TrainConfig(
        **{"accumulate": 1 if group.world > 2 else 2, **mode.settings},
        steps=mode.steps, trace_every=mode.watch, validate_every=mode.watch, validation_batches=1,
        checkpoints=CheckpointConfig(every_steps=mode.watch, keep=2),
    )  # fmt: skip
    model = Decoder(system).to(device, mode.dtype)
    model.gradient_checkpointing = config.gradient_checkpointing
    if config.shard_tables and group.world > 1:
        shard_tables(model, group.rank, group.world)
    if config.parallel == "shard" and group.world > 1:
        shard(model, group.world, device)
    source, validation = make_source(config.carry, group, mode.seq_len), make_source("sequence", group)
    checkpoints = Checkpoints(folder, 2, group)
    trainer = Trainer(model, source, config, checkpoints, group=group, validation=validation)
    trainer.log = Kept() if group.is_first else None  # type: ignore[assignment]
    return trainer


def run(name: str, folder: Path, group: Group, device: str = "cpu") -> dict[str, Any]:
    """Train in one mode, or go on with it."""
    trainer = make_trainer(MODES[name], folder / name, group, torch.device(device))
    begun = trainer.resume().step
    trainer.run(StopRequest())
    log = trainer.log
    weights = whole_weights(trainer.model)
    return {
        "losses": log.losses if isinstance(log, Kept) else [],
        "hash": tensor_hash(weights.items()),
        "start": begun,
        "held": sum(p.shape[0] for p in trainer.model.parameters() if share_of(p) is not None),
    }


def forget_last(folder: Path, group: Group) -> None:
    """Remove the newest checkpoint, as if the run had stopped before it."""
    group.wait()
    if group.is_first:
        shutil.rmtree(max(folder.glob("step-*")))
    group.wait()


def spoil_keys(trainer: Trainer, stop: StopRequest) -> None:
    """Change one number of a sub-key table."""
    next(b for name, b in trainer.model.named_buffers() if "initial_keys" in name)[0] += 1


def spoil_owner(trainer: Trainer, stop: StopRequest) -> None:
    """Take the first process for this one, so that some rows have two owners and others none."""
    shares = filter(None, map(share_of, trainer.model.parameters()))
    next(shares).exchange.rank = 0


def stop_in_step(trainer: Trainer, stop: StopRequest) -> None:
    """Ask to stop during the first step."""
    step = trainer._step

    def stopped(batch: Any) -> None:
        stop.note(signal.SIGTERM, None)
        step(batch)

    trainer._step = stopped  # type: ignore[method-assign]


def failing_writes() -> AbstractContextManager[Any]:
    """Let no memories be written."""
    return mock.patch("fwpkm.train.checkpoint.save_carried", side_effect=OSError("No space left on device"))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to the last process alone."""

    spoil: Callable[[Trainer, StopRequest], None] = lambda trainer, stop: None
    during: Callable[[], AbstractContextManager[Any]] = nullcontext


FAULTS = {
    "differ": Fault(spoil=spoil_keys),
    "two owners": Fault(spoil=spoil_owner),
    "disk full": Fault(during=failing_writes),
    "signal": Fault(spoil=stop_in_step),
}


def run_fault(name: str, folder: Path, group: Group) -> dict[str, Any]:
    """Train with a fault, and say how it ended and where one would go on."""
    fault, mode, device = FAULTS[name], MODES["carried all"], torch.device("cpu")
    trainer = make_trainer(mode, folder / name, group, device)
    trainer.save()
    hit, stop, error = group.rank == group.world - 1, StopRequest(), ""
    if hit:
        fault.spoil(trainer, stop)
    try:
        with fault.during() if hit else nullcontext():
            end = trainer.run(stop).end
    except (OSError, RuntimeError) as problem:
        end, error = "failed", str(problem)
    resumed = make_trainer(mode, folder / name, group, device).resume().step
    return {"ends": group.gather(end), "errors": group.gather(error), "resumed": resumed}


def main() -> None:
    """Print the results of a suite, the short one's also from the checkpoint before the last."""
    folder, device, suite = Path(sys.argv[1]), pick_device(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    results = {}
    with process_group(device) as group:
        for name in SUITES[suite]:
            results[name] = run(name, folder, group, str(device))
            if suite == "short":
                forget_last(folder / name, group)
                results[f"{name} resumed"] = run(name, folder, group, str(device))
                forget_last(folder / name, group)
        if suite == "short" and device.type == "cpu":
            results |= {name: run_fault(name, folder, group) for name in FAULTS}
        if group.is_first:
            print(json.dumps(results))


if __name__ == "__main__":
    main()
