"""What defines the recurrence of the fast-weight MLP: shared by the definition and by the fast form."""

from dataclasses import dataclass
from typing import Literal

from fwpkm.ops.core.options import Border

TargetKind = Literal["mean", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FastMLPOptions:
    """Options of the recurrence. Fields are checked once, here."""

    chunk_size: int = 512
    """C: tokens that read the same fast weights before these are written."""
    lookahead: int = 1
    """l: how far ahead of its token a target reaches."""
    target: TargetKind = "mean"
    """What token t learns: the mean of the values of tokens t to t + l, or the value of t + l."""
    lr: float = 0.1
    """Step size of all six weights."""
    weight_decay: float = 0.0
    """Times the weights, added to their gradients."""
    clip_gradients: bool = False
    """Clamp each number of the gradients to [-1, 1]."""
    border: Border = "moved"
    """Targets across a chunk's end: "moved" waits for them, "dropped" never writes their tokens (D2)."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least {low}, got {name}={getattr(self, name)}"
            for name, low in (("chunk_size", 1), ("lookahead", 0), ("weight_decay", 0))
            if getattr(self, name) < low
        ]
        problems += [
            f"{name} must be {' or '.join(kinds)}, got {name}={getattr(self, name)!r}"
            for name, kinds in (("target", ("mean", "last")), ("border", ("moved", "dropped")))
            if getattr(self, name) not in kinds
        ]
        if problems:
            raise ValueError("FastMLPOptions: " + "; ".join(problems))

    @property
    def steps_keys(self) -> bool:
        """False: there are no sub-keys."""
        return False
