"""What defines LaCT's recurrence: shared by the definition and by the fast form."""

from dataclasses import dataclass
from typing import Literal

from fwpkm.ops.core.options import Border

UpdateKind = Literal["gradient", "muon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaCTOptions:
    """Options of the recurrence. Fields are checked once, here."""

    chunk_size: int = 512
    """C: tokens that read the same fast weights before these are written."""
    update: UpdateKind = "gradient"
    """What is added to the weights: the chunk's gradient, or the nearest orthogonal matrix to it."""
    momentum: bool = True
    """Add the last chunk's update, times a factor that the tokens choose, to this one's."""

    def __post_init__(self) -> None:
        problems = []
        if self.chunk_size < 1:
            problems.append(f"chunk_size must be at least 1, got chunk_size={self.chunk_size}")
        if self.update not in ("gradient", "muon"):
            problems.append(f"update must be gradient or muon, got update={self.update!r}")
        if problems:
            raise ValueError("LaCTOptions: " + "; ".join(problems))

    @property
    def lookahead(self) -> int:
        """0: a token's key is taught its own value."""
        return 0

    @property
    def border(self) -> Border:
        """The chunk that is not yet full waits, whatever the calls."""
        return "moved"

    @property
    def steps_keys(self) -> bool:
        """False: there are no sub-keys."""
        return False
