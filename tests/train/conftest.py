"""Tiny runs that every test of the loop starts from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fwpkm.data.batches import BatchSource, CarriedBatches, SequenceBatches
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.sequences import PackedSequences
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system
from fwpkm.train.checkpoint import Checkpoints
from fwpkm.train.config import CheckpointConfig, TrainConfig
from fwpkm.train.log import Log
from fwpkm.train.loop import Trainer
from fwpkm.train.parallel import Group
from fwpkm.train.rundir import RunFolder

MakeRun = Callable[..., Trainer]


def make_documents() -> TokenDocuments:
    """Tokens in which each is followed by its double, modulo 39, more often than not."""
    draw = np.random.default_rng(0)
    documents = []
    for length in draw.integers(20, 90, 30):
        tokens = [1]
        for _ in range(length):
            tokens.append(2 * tokens[-1] % 39 if draw.random() < 0.8 else int(draw.integers(1, 39)))
        documents.append(np.array(tokens))
    return TokenDocuments.from_tokens(documents, eos_id=39)


def make_source(carry: str = "sequence") -> BatchSource:
    if carry == "document":
        return CarriedBatches(make_documents(), batch_size=2, seq_len=16)
    return SequenceBatches(PackedSequences(make_documents(), seq_len=16), batch_size=2)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Build a run in one folder; every call is a new process, as it were."""

    def make(system: str | DecoderConfig = "sliding_fwpkm", **settings: Any) -> Trainer:
        settings = {
            "steps": 4,
            "log_every": 2,
            "trace_every": None,
            "validate_every": None,
            "validation_batches": 1,
            **settings,
        }
        settings.setdefault("checkpoints", CheckpointConfig(every_steps=2, keep=9))
        config = TrainConfig(**settings)
        torch.manual_seed(config.seed)
        model = Decoder(make_system(system) if isinstance(system, str) else system)
        folder = RunFolder(tmp_path)
        folder.checkpoints.mkdir(exist_ok=True)
        return Trainer(
            model,
            make_source(config.carry),
            config,
            Checkpoints(folder.checkpoints, config.checkpoints.keep, Group()),
            group=Group(),
            log=Log(config, folder, step=0, quiet=True),
            validation=make_source(),
        )

    return make


def losses(trainer: Trainer) -> list[float]:
    """Every step's loss that the run's folder holds."""
    assert trainer.log is not None
    return [line["objective"] for line in trainer.log.folder.read_metrics("train")]
