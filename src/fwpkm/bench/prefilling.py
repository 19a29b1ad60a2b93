"""Prefilling contexts: piece by piece, all of them over the same stretch of time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from fwpkm.bench.decoding import Context, Decoding
from fwpkm.bench.measure import Timing, seconds_of

ROUNDS = 5
_MOST_REPEATS, _LEAST_SHARE = 32, 8
"""In a round a context is prefilled so often that it comes to an eighth of the longest, but at most 32 times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A layer that reads a context and decodes behind it."""

    read: Callable[[Tensor, Any], Any]
    """From a piece of hidden states, and what the pieces before came to or None, to what they come to with it."""
    piece: int | None
    """Tokens of a piece; None reads a context at once."""
    begin: Callable[[list[Any], Context], Decoding]
    """Takes what a prefill returned out of a list: were it held elsewhere, each step would copy it."""
    backend: str

    def prefill(self, hidden: Tensor) -> Any:
        """Read a whole context; return what decoding goes on from."""
        state = None
        for piece in self.pieces(hidden):
            state = self.read(piece, state)
        return state

    def pieces(self, hidden: Tensor) -> Sequence[Tensor]:
        """Cut a context into what is read at once."""
        return hidden.split(self.piece or hidden.shape[1], dim=1)


class _Lane:
    """One context that is prefilled again and again, a piece at a time."""

    def __init__(self, reader: Reader, hidden: Tensor, context: Context, longest: int) -> None:
        self.reader, self.device = reader, context.device
        self.pieces = reader.pieces(hidden[:, : context.length])
        self.repeats = max(1, min(_MOST_REPEATS, longest // (_LEAST_SHARE * context.length)))
        self.state: Any = None
        self.done, self.spent = 0, 0.0

    def due(self) -> list[float]:
        """Spread the pieces of a round evenly over it, from 0 to 1."""
        count = self.repeats * len(self.pieces)
        return [(i + 0.5) / count for i in range(count)]

    def advance(self) -> None:
        """Read the next piece, and time it; behind the last one begin anew."""
        piece = self.pieces[self.done % len(self.pieces)]
        self.spent += seconds_of(partial(self._read, piece), self.device)
        self.done += 1
        if self.done % len(self.pieces) == 0:
            self.state = None

    def _read(self, piece: Tensor) -> None:
        self.state = self.reader.read(piece, self.state)

    def take_mean(self) -> float:
        """Return the mean seconds of a prefill since the last call."""
        mean, self.spent = self.spent / self.repeats, 0.0
        return mean


def prefill_side_by_side(reader: Reader, hidden: Tensor, contexts: Sequence[Context]) -> list[Timing]:
    """Measure contexts of the same hidden states in rounds, whose mean prefills are what is summarised.

    In a round the longest is read once and shorter ones several times, their pieces between its pieces: what slows
    the machine down for a while slows each of them for that share of its time.
    """
    lanes = [_Lane(reader, hidden, own, longest=hidden.shape[1]) for own in contexts]
    turns = sorted((due, number) for number, lane in enumerate(lanes) for due in lane.due())
    rounds = []
    for _ in range(ROUNDS):
        for _, number in turns:
            lanes[number].advance()
        rounds.append([lane.take_mean() for lane in lanes])
    return [Timing.of(list(means)) for means in zip(*rounds, strict=True)]
