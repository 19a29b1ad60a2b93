"""Run by test_distributed.py, once per process: losses and a hash of the weights of a tiny run, as one JSON line."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from fwpkm.data.batches import SequenceBatches
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.sequences import PackedSequences
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system
from fwpkm.train.checkpoint import Checkpoints, whole_weights
from fwpkm.train.config import CheckpointConfig, TrainConfig
from fwpkm.train.loop import Trainer
from fwpkm.train.parallel import Group, process_group, tensor_hash
from fwpkm.train.sharding import shard
from fwpkm.train.stop import StopRequest

PKM = {"num_subkeys": 8, "key_dim": 8, "value_dim": 16, "num_heads": 2, "topk": 3, "sparse_grad": True}


class Kept:
    """A log that keeps losses only."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        if kind == "train":
            self.losses.append(values["objective"])

    def progress(self, *args: Any) -> None: ...

    def say(self, text: str) -> None: ...


def source(group: Group) -> SequenceBatches:
    draw = torch.Generator().manual_seed(0)
    tokens = [torch.randint(39, (60,), generator=draw).numpy() for _ in range(10)]
    documents = TokenDocuments.from_tokens(tokens, eos_id=39)
    sequences = PackedSequences(documents, seq_len=16)
    return SequenceBatches(sequences, batch_size=4, rank=group.rank, world_size=group.world)


def run(mode: str, folder: Path, group: Group) -> dict[str, Any]:
    """Train in one mode; in float64, as rounding must not hide what is wrong."""
    torch.manual_seed(0)
    sharded = mode == "shard"
    model = Decoder(make_system("mixed", pkm=PKM)).double()
    config = TrainConfig(
        steps=4, trace_every=2, validate_every=2, validation_batches=1,
        parallel="shard" if sharded else "replicate", accumulate=1 if mode == "whole" else 2,
        checkpoints=CheckpointConfig(every_steps=2, keep=2),
    )  # fmt: skip
    if sharded:
        shard(model, group.world, torch.device("cpu"))
    checkpoints = Checkpoints(folder / mode, 2, group)
    trainer = Trainer(model, source(group), config, checkpoints, group=group, validation=source(group))
    kept = Kept()
    trainer.log = kept if group.is_first else None  # type: ignore[assignment]
    start = trainer.resume().step
    if mode == "differ" and not group.is_first:
        next(b for name, b in model.named_buffers() if "initial_keys" in name)[0] += 1
    try:
        trainer.run(StopRequest())
    except RuntimeError as error:
        if mode != "differ":
            raise
        return {"error": str(error)}
    return {"losses": kept.losses, "hash": tensor_hash(whole_weights(model).items()), "start": start}


def forget_last(folder: Path, group: Group) -> None:
    """Remove the newest checkpoint, as if the run had stopped before it."""
    group.wait()
    if group.is_first:
        shutil.rmtree(max(folder.glob("step-*")))
    group.wait()


def main() -> None:
    """Print the results of all modes, and of each once more from the checkpoint before its last."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    results = {}
    with process_group(torch.device("cpu")) as group:
        for mode in ("replicate", "shard"):
            results[mode] = run(mode, folder, group)
            forget_last(folder / mode, group)
            results[f"{mode} resumed"] = run(mode, folder, group)
        results["differ"] = run("differ", folder, group)
        forget_last(folder / "replicate", group)
        if group.is_first:
            print(json.dumps(results))


if __name__ == "__main__":
    main()
