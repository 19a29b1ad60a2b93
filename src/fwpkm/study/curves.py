"""How a training went, from its run's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from fwpkm.train.rundir import RunFolder

_PER_OCTAVE = 4
"""Points of a curve between a number of tokens and twice as many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What is known of one seed's training."""

    seed: int
    finished: bool
    steps: int
    tokens: int
    seconds: float
    losses: Mapping[int, float]
    """Mean training loss in nats of steps that lie together, by the tokens of the first of them."""
    validation: float | None
    """The last validation's loss in nats, if there was one."""

    @property
    def diverged(self) -> bool:
        """Whether it ended with a loss that is no number, though no step was refused."""
        ends = [list(self.losses.values())[-1], *([] if self.validation is None else [self.validation])]
        return self.finished and not all(map(isfinite, ends))


def read_training(folder: Path, seed: int, *, finished: bool) -> Training | None:
    """Read how a training went, so far as it went; None if it has not taken a step, or its log is not there."""
    run = RunFolder(folder)
    steps, validated = run.read_metrics("train"), run.read_metrics("validation")
    if not steps:
        return None
    last = steps[-1]
    return Training(
        seed=seed,
        finished=finished,
        steps=last["step"],
        tokens=last["tokens"],
        seconds=last["seconds"],
        losses=_thinned(steps),
        validation=validated[-1]["loss"] if validated else None,
    )


def _thinned(steps: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Average steps whose tokens lie between neighbouring powers of 2**(1/4)."""
    parts: dict[int, list[Mapping[str, Any]]] = {}
    for step in steps:
        parts.setdefault(_part(step["tokens"]), []).append(step)
    return {own[0]["tokens"]: sum(s["loss"] for s in own) / len(own) for own in parts.values()}


def _part(tokens: int) -> int:
    """Return how often `tokens` can be divided by 2**(1/4) before 1 is reached."""
    octave = tokens.bit_length() - 1
    return octave * _PER_OCTAVE + (tokens - (1 << octave)) * _PER_OCTAVE // (1 << octave)
