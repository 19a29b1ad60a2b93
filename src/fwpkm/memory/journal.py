"""Who wrote what: every write of one stream's table, and what it replaced, as far as anybody asked for it.

A journal costs, for each token, its J slots and weights, its target, and its share of the rows as they were:
several times what the table itself grows by. It is kept with the table and forks and rolls back with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One chunk's write."""

    tokens: Int[Tensor, " M"]
    """The tokens that wrote, counted through the stream."""
    cells: Int[Tensor, " R"]
    """The distinct slots that were addressed."""
    number: Int[Tensor, "M J"]
    """Which of them each of the M tokens addressed."""
    w: Float[Tensor, "M J"]
    """Read weights."""
    write_w: Float[Tensor, "M J"]
    """Step sizes."""
    target: Float[Tensor, "M Dv"]
    """What the slots should have answered."""
    before: Float[Tensor, "R Dv"]
    """What the slots held before."""
    was_written: Bool[Tensor, " R"]
    """Whether they were written before; the base table held otherwise."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = (
            self.tokens,
            self.cells,
            self.number,
            self.w,
            self.write_w,
            self.target,
            self.before,
            self.was_written,
        )
        return sum(x.numel() * x.element_size() for x in tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A token that an answer comes from."""

    token: int
    """The token whose query chose the slots, counted through the stream; it wrote the value `lookahead` later."""
    weight: float
    """How much of its value is in what was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """The writes of one stream so far, as a value: versions share one growing list, as Go's slices do."""

    written: int = 0
    """Tokens that have written, which is the number of the next one to write."""
    _shared: list[Write] = field(default_factory=list, repr=False)
    _length: int = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Write]:
        return iter(self._shared[: self._length])

    def append(self, write: Write) -> "Journal":
        """Return the journal with one more write."""
        shared = self._shared if len(self._shared) == self._length else self._shared[: self._length]
        shared.append(write)
        last = int(write.tokens[-1]) if len(write.tokens) else self.written - 1
        return Journal(written=max(self.written, last + 1), _shared=shared, _length=self._length + 1)

    def before(self, last: int) -> "Journal":
        """Return the journal without its `last` writes, and no other count of tokens."""
        return Journal(written=self.written, _shared=self._shared, _length=self._length - last)

    def skipped_to(self, token: int) -> "Journal":
        """Return the journal of a stream whose next token to write is `token`."""
        return Journal(written=token, _shared=self._shared, _length=self._length)

    def writers(self, cells: Int[Tensor, " Q"]) -> list[dict[int, float]]:
        """For each slot, how much of each token's target is in it: {token: share}.

        A write replaces the share  sum_j a_tj w_tj  of its slot by its target. What neighbours in the same read
        contribute to the step is left out, so shares are exact for slots that are read alone.
        """
        shares: list[dict[int, float]] = [{} for _ in cells]
        for write in self:
            for q, place in _places(cells, write.cells):
                token, j = (write.number == place).nonzero(as_tuple=True)
                step = write.write_w[token, j]
                kept = 1 - float((step * write.w[token, j]).sum())
                shares[q] = {t: share * kept for t, share in shares[q].items()}
                for t, share in zip(write.tokens[token].tolist(), step.tolist(), strict=True):
                    shares[q][t] = shares[q].get(t, 0.0) + share
        return shares

    def sources(
        self, slots: Int[Tensor, " P"], weights: Float[Tensor, " P"], *, most: int = 10
    ) -> list[Source]:
        """Name the tokens behind a read of `slots` with `weights`, those that contribute most first."""
        cells, number = slots.unique(return_inverse=True)
        shares, total = self.writers(cells), dict[int, float]()
        for q, weight in zip(number.tolist(), weights.tolist(), strict=True):
            for token, share in shares[q].items():
                total[token] = total.get(token, 0.0) + weight * share
        best = sorted(total.items(), key=lambda item: -abs(item[1]))[:most]
        return [Source(token=token, weight=weight) for token, weight in best]

    @property
    def num_bytes(self) -> int:
        """Bytes of all writes."""
        return sum(write.num_bytes for write in self)


def _places(cells: Tensor, among: Tensor) -> Sequence[tuple[int, int]]:
    """List pairs (q, r) with cells[q] == among[r]."""
    found = (cells[:, None] == among[None, :]).nonzero()
    return [(q, r) for q, r in found.tolist()]
