"""How a training went, from its run's folder, or from what is kept of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

from fwpkm.files import read_json, write_json
from fwpkm.nested import from_mapping, to_mapping
from fwpkm.train.rundir import RunFolder

KEPT = "training.json"
"""What is kept of a training beside its run's folder, so that the run may be deleted."""
_PER_OCTAVE = 4
"""Points of a curve between a number of tokens and twice as many."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Training losses of steps that lie together."""

    tokens: int
    """Those trained on at the end of the first of these steps."""
    loss: float
    """Their mean, in nats; steps that were skipped, having none, are left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What is known of one seed's training."""

    seed: int
    finished: bool
    steps: int
    tokens: int
    seconds: float
    curve: tuple[CurvePoint, ...]
    """In the order of tokens."""
    validation: float | None = None
    """The last validation's loss in nats, if there was one."""

    @property
    def losses(self) -> Mapping[int, float]:
        """The curve's losses by its tokens."""
        return {point.tokens: point.loss for point in self.curve}

    @property
    def diverged(self) -> bool:
        """Whether it ended without a loss: that of validation, or of all its last steps, is no number."""
        last = self.curve[-1].loss if self.validation is None else self.validation
        return self.finished and not isfinite(last)


def read_training(folder: Path, seed: int, *, finished: bool) -> Training | None:
    """Read how a training went, so far as it went, from its run or from what is kept of it.

    Args:
        folder: Its folder in the study, with its run's folder in it.
        seed: Its seed.
        finished: Whether it came to its end.

    Returns:
        None if it has not taken a step, or nothing was kept.

    Raises:
        ValueError: If what was kept is damaged.
    """
    run = RunFolder(folder / "run")
    steps, validated = run.read_metrics("train"), run.read_metrics("validation")
    if not steps:
        return _kept(folder / KEPT, seed) if finished else None
    last = steps[-1]
    return Training(
        seed=seed,
        finished=finished,
        steps=last["step"],
        tokens=last["tokens"],
        seconds=last["seconds"],
        curve=_thinned(steps),
        validation=validated[-1]["loss"] if validated else None,
    )


def keep_training(folder: Path, training: Training) -> None:
    """Write beside a run's folder how the training went."""
    write_json(folder / KEPT, to_mapping(training))


def _kept(file: Path, seed: int) -> Training | None:
    if not file.exists():
        return None
    content = read_json(file)
    try:
        return replace(from_mapping(Training, content), seed=seed, finished=True)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _thinned(steps: Sequence[Mapping[str, Any]]) -> tuple[CurvePoint, ...]:
    """Average steps whose tokens lie between neighbouring powers of 2**(1/4)."""
    parts: dict[int, list[Mapping[str, Any]]] = {}
    for step in steps:
        parts.setdefault(_part(step["tokens"]), []).append(step)
    return tuple(CurvePoint(tokens=own[0]["tokens"], loss=_mean(own)) for own in parts.values())


def _mean(steps: Sequence[Mapping[str, Any]]) -> float:
    losses = [step["loss"] for step in steps if isfinite(step["loss"])]
    return sum(losses) / len(losses) if losses else nan


def _part(tokens: int) -> int:
    """Return how often `tokens` can be divided by 2**(1/4) before 1 is reached."""
    octave = tokens.bit_length() - 1
    return octave * _PER_OCTAVE + (tokens - (1 << octave)) * _PER_OCTAVE // (1 << octave)
