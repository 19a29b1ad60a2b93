"""How a table is used: how much of it, by how many tokens a slot, and how long ago."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.inspect.writers import Writers


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """One bar of a histogram."""

    low: int
    high: int
    """Counts from `low` to `high`, both included."""
    slots: int
    """How many slots are in there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """The use of one table of N slots after some tokens of one document."""

    num_slots: int
    """N."""
    written: int
    """Slots that were written."""
    collided: int
    """Slots that several tokens of the document wrote; the same token in another reading is no other token."""
    writers: tuple[Bin, ...]
    """Slots by how many tokens of the document wrote them."""
    ages: tuple[Bin, ...]
    """Written slots by how many tokens were read since the last write."""
    median_age: float | None
    """The middle one of these ages; None of a table without writes."""

    @property
    def occupancy(self) -> float:
        """Share of the slots that were written."""
        return self.written / self.num_slots


def take_census(writers: Writers, *, num_slots: int, document_tokens: int, tokens_seen: int) -> Census:
    """Count how a table is used.

    Args:
        writers: All its writes.
        num_slots: N.
        document_tokens: Length of the document, which was read once or several times in a row.
        tokens_seen: Tokens that the stream has seen.
    """
    pairs = torch.stack((writers.slot, writers.token % document_tokens)).unique(dim=1)
    _, count = pairs[0].unique(return_counts=True)
    age = tokens_seen - 1 - last_writes(writers)
    return Census(
        num_slots=num_slots,
        written=len(count),
        collided=int((count > 1).sum()),
        writers=_histogram(count, first=1),
        ages=_histogram(age, first=0),
        median_age=float(age.double().quantile(0.5)) if len(age) else None,
    )


def last_writes(writers: Writers) -> Int[Tensor, " S"]:
    """Return the token that wrote last, for every written slot in ascending order."""
    last = torch.ones_like(writers.slot, dtype=torch.bool)
    last[:-1] = writers.slot[1:] != writers.slot[:-1]
    return writers.token[last]


def _histogram(counts: Int[Tensor, " S"], *, first: int) -> tuple[Bin, ...]:
    """Count in bins that double:  [first], [first + 1, ...], ... without empty ones at the end."""
    bins: list[Bin] = []
    edges = _edges(first, int(counts.max()) if len(counts) else -1)
    for low, high in edges:
        bins.append(Bin(low=low, high=high, slots=int(((counts >= low) & (counts <= high)).sum())))
    return tuple(bins)


def _edges(first: int, last: int) -> Sequence[tuple[int, int]]:
    edges, low, width = [], first, 1
    while low <= last:
        edges.append((low, low + width - 1))
        low, width = low + width, 2 * width
    return edges
