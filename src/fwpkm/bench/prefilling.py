"""Prefilling contexts: piece by piece, all of them over the same stretch of time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from fwpkm.bench.decoding import Context, Decoding
from fwpkm.bench.measure import Timing, if_it_fits, seconds_of
from fwpkm.ops.blocks import keeping_blocks

ROUNDS = 5
_MOST_REPEATS, _LEAST_SHARE = 32, 8
"""In a round a context is prefilled so often that it comes to an eighth of the longest, but at most 32 times."""
_PIECES_A_TURN = 4
_KEPT_BYTES = 16 << 30


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
    """One context that is prefilled again and again, a few pieces at a time."""

    def __init__(self, reader: Reader, hidden: Tensor, context: Context, longest: int) -> None:
        self.reader, self.device = reader, context.device
        self.pieces = reader.pieces(hidden[:, : context.length])
        self.repeats = max(1, min(_MOST_REPEATS, longest // (_LEAST_SHARE * context.length)))
        self.state: Any = None
        self.done, self.spent = 0, 0.0

    def turns(self) -> list[tuple[float, int]]:
        """Spread the pieces of a round evenly over it: return when each turn is due, from 0 to 1, and its pieces."""
        count = self.repeats * len(self.pieces)
        starts = range(0, count, _PIECES_A_TURN)
        sizes = [min(_PIECES_A_TURN, count - start) for start in starts]
        return [((start + size / 2) / count, size) for start, size in zip(starts, sizes, strict=True)]

    def advance(self, num_pieces: int) -> None:
        """Read the next pieces, and time them together; behind the last one begin anew."""
        self.spent += seconds_of(partial(self._read, num_pieces), self.device)

    def _read(self, num_pieces: int) -> None:
        for _ in range(num_pieces):
            self.state = self.reader.read(self.pieces[self.done % len(self.pieces)], self.state)
            self.done += 1
            if self.done % len(self.pieces) == 0:
                self.state = None

    def take_mean(self) -> float:
        """Return the mean seconds of a prefill since the last call."""
        mean, self.spent = self.spent / self.repeats, 0.0
        return mean


def prefill_side_by_side(reader: Reader, hidden: Tensor, contexts: Sequence[Context]) -> list[Timing]:
    """Measure contexts of the same hidden states in rounds, whose mean prefills are what is summarised.

    In a round the longest is read once and shorter ones several times, a few of their pieces between a few of its
    pieces: what slows the machine down for a while slows each of them for that share of its time. Who comes back finds
    another's rows in the caches, for the first of these pieces. Blocks that a context frees are kept for the next, as
    they are where one context is read after another; a first round, which makes them, is not measured.
    """
    lanes = [_Lane(reader, hidden, own, longest=hidden.shape[1]) for own in contexts]
    turns = sorted((due, n, size) for n, lane in enumerate(lanes) for due, size in lane.turns())
    rounds = []
    with keeping_blocks(_KEPT_BYTES):
        for _ in range(1 + ROUNDS):
            for _, number, num_pieces in turns:
                lanes[number].advance(num_pieces)
            rounds.append([lane.take_mean() for lane in lanes])
    return [Timing.of(list(means)) for means in zip(*rounds[1:], strict=True)]


def prefill_what_fits(reader: Reader, hidden: Tensor, contexts: Sequence[Context]) -> list[Timing]:
    """Do so without the longest ones, if there is too little memory for the states of all of them at once."""
    for count in range(len(contexts), 0, -1):
        own = contexts[:count]
        read = partial(prefill_side_by_side, reader, hidden[:, : own[-1].length], own)
        times = if_it_fits(read)
        if times is not None:
            return times
    return []
