"""How numbers are written, and how sure a share is."""

from math import sqrt

_Z = 1.959964
"""Normal quantile of a 95% interval."""


def interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927), which stays sensible at 0, at 1 and for few samples."""
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"interval: 0 <= right <= total and 1 <= total, got right={right} of total={total}")
    share, z2 = right / total, _Z**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def percent(share: float) -> str:
    """Write a share as whole percents."""
    return f"{share:.0%}"


def span(start: int, stop: int) -> str:
    """Write start <= position < stop."""
    return f"{start:,}" if stop == start + 1 else f"{start:,} to {stop - 1:,}"
