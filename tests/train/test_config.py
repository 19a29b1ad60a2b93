"""Budgets, schedule, and what a recipe's [train] and [data] refuse."""

import math
from typing import Any

import pytest

from fwpkm.nested import from_mapping, to_mapping
from fwpkm.testing.unchecked import build_unchecked
from fwpkm.train.config import CheckpointConfig, GuardConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from fwpkm.train.data import DataConfig
from fwpkm.train.schedule import lr_factor


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (TrainConfig, {}, "steps or max_tokens must be given"),
        (TrainConfig, {"schedule": ScheduleConfig(horizon="minutes")}, "needs max_minutes"),
        (TrainConfig, {"steps": 0}, "steps must be at least 1, got steps=0"),
        (TrainConfig, {"steps": 1, "precision": "float16"}, "precision: unknown value 'float16'"),
        (TrainConfig, {"steps": 1, "carry": "documents"}, "did you mean 'document'"),
        (TrainConfig, {"steps": 1, "parallel": "shards"}, "did you mean 'shard'"),
        (TrainConfig, {"steps": 1, "accumulate": 0, "max_minutes": 0.0}, "accumulate .*; max_minutes must be above 0"),
        (
            TrainConfig,
            {"steps": 1, "compile": True, "gate_cost": 0.1, "parallel": "shard"},
            "compile=true needs gate_cost=0; compile=true needs parallel='replicate'",
        ),
        (OptimizerConfig, {"lr": 0.0}, "lr must be above 0"),
        (OptimizerConfig, {"beta1": 1.0, "weight_decay": -1.0}, "beta1 must be in .*; weight_decay"),
        (ScheduleConfig, {"warmup": 1.5}, "warmup must be in"),
        (ScheduleConfig, {"horizon": "minute"}, "did you mean 'minutes'"),
        (CheckpointConfig, {"keep": 0}, "keep must be at least 1"),
        (GuardConfig, {"gate_margin": 0.5}, "gate_margin must be in"),
        (DataConfig, {"layout": "carried", "recall": from_mapping(DataConfig, {"recall": {}}).recall}, "recall needs"),
        (DataConfig, {"layout": "pack", "seq_len": 0}, "seq_len .*; layout: .* did you mean 'packed'"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_the_remedy(cls: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_unchecked(cls, **{**_defaults(cls), **values})


def _defaults(cls: type) -> dict[str, Any]:
    if cls is not TrainConfig:
        return {}
    sections = {"optimizer": OptimizerConfig, "schedule": ScheduleConfig}
    sections |= {"checkpoints": CheckpointConfig, "guards": GuardConfig}
    return {name: section() for name, section in sections.items()}


def test_a_config_written_out_reads_the_same() -> None:
    config = TrainConfig(
        steps=3,
        validate_every=None,
        checkpoints=CheckpointConfig(every_minutes=None),
        optimizer=OptimizerConfig(clip_norm=None),
    )
    assert from_mapping(TrainConfig, to_mapping(config)) == config


def test_the_step_size_rises_straight_and_falls_as_half_a_cosine() -> None:
    config = ScheduleConfig(warmup=0.2, final=0.1)
    assert lr_factor(config, 0.0) == 0
    assert lr_factor(config, 0.1) == pytest.approx(0.5)
    assert lr_factor(config, 0.2) == pytest.approx(1)
    assert lr_factor(config, 0.6) == pytest.approx(0.55)
    assert lr_factor(config, 0.4) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert lr_factor(config, 1.0) == pytest.approx(0.1)
    assert lr_factor(config, 1.1) == pytest.approx(0.1)


def test_no_warm_up_and_nothing_but_warm_up() -> None:
    assert lr_factor(ScheduleConfig(warmup=0.0), 0.0) == 1
    assert lr_factor(ScheduleConfig(warmup=1.0), 1.0) == 1
