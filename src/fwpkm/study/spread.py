"""Several seeds' numbers as one: mean and spread."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What several seeds gave."""

    values: tuple[float, ...]
    """One for each seed, at least one."""

    @classmethod
    def of(cls, values: Iterable[float | int]) -> "Spread":
        """Hold them together.

        Raises:
            ValueError: If there is none.
        """
        spread = cls(values=tuple(map(float, values)))
        if not spread.values:
            raise ValueError("Spread: there must be at least one value, got none")
        return spread

    @property
    def mean(self) -> float:
        """Their mean."""
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """Their standard deviation, n - 1 in the denominator; None for one value."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def low(self) -> float:
        """The lowest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.values)

    def plain(self) -> dict[str, object]:
        """Return it for a JSON file."""
        return {"mean": self.mean, "std": self.std, "values": list(self.values)}
