"""What defines the core's arithmetic: shared by the definition and by every fast form."""

from dataclasses import dataclass
from typing import Literal

from fwpkm.ops.addressing import ScoreKind

WeightKind = Literal["softmax", "silu", "relu"]
WriteRule = Literal["paper", "release", "exact"]
KeyLoss = Literal["entropy", "memory", "both", "none"]
Border = Literal["moved", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreOptions:
    """Options of the FwPKM recurrence. Fields are checked once, here."""

    topk: int = 8
    """k: slots read per head."""
    chunk_size: int = 512
    """C: tokens that read the same fast weights before these are written."""
    lookahead: int = 1
    """l: token t writes the value of token t + l."""
    score: ScoreKind = "idw"
    """How a query half is compared with a sub-key."""
    weights: WeightKind = "softmax"
    """Turns the H*k kept scores into read weights."""
    write_rule: WriteRule = "paper"
    """Step size eta: "paper" is 1; "release" is H*k*M/P (D1); "exact" is 1 / sum_j w_tj^2 per token, after
    which a token that shares no slot reads its target exactly."""
    value_lr: float = 1.0
    """Factor on eta."""
    key_lr: float = 1.0
    """Step size of the sub-keys."""
    key_loss: KeyLoss = "entropy"
    """What moves the sub-keys: the addressing loss, the memory loss, both, or nothing."""
    addressing_weight: float = 1.0
    """Factor on the addressing loss."""
    border: Border = "moved"
    """Pairs (t, t + l) across a chunk's end: "moved" waits for their targets, "dropped" never writes them (D2)."""
    weight_decay: float = 0.0
    """Inner weight decay of tables and keys (authors' release)."""
    clip_gradients: bool = False
    """Clamp the inner gradients to [-1, 1] (authors' release)."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least {low}, got {name}={getattr(self, name)}"
            for name, low in (("topk", 1), ("chunk_size", 1), ("lookahead", 0), ("weight_decay", 0))
            if getattr(self, name) < low
        ]
        for name, kinds in (
            ("score", ("idw", "dot")),
            ("weights", ("softmax", "silu", "relu")),
            ("write_rule", ("paper", "release", "exact")),
            ("key_loss", ("entropy", "memory", "both", "none")),
            ("border", ("moved", "dropped")),
        ):
            if getattr(self, name) not in kinds:
                problems.append(
                    f"{name} must be one of {', '.join(kinds)}, got {name}={getattr(self, name)!r}"
                )
        if problems:
            raise ValueError("CoreOptions: " + "; ".join(problems))

    @property
    def steps_keys(self) -> bool:
        """Whether every write also moves the sub-keys."""
        return self.key_loss != "none"

    @property
    def needs_definition(self) -> str | None:
        """Name the option that only the literal definition can do, if there is one."""
        if self.key_loss in ("memory", "both"):
            return f"key_loss={self.key_loss!r}"
        if self.weight_decay:
            return f"weight_decay={self.weight_decay}"
        return "clip_gradients=True" if self.clip_gradients else None
