"""Which tokens read, and which write, while the same fast weights are in force."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

from fwpkm.ops.core.options import Border


@runtime_checkable
class Chunking(Protocol):
    """The part of a recurrence's options that says when it writes."""

    def __hash__(self) -> int:
        """Equal options must hash alike: plans are cached."""

    @property
    def chunk_size(self) -> int:
        """C: tokens that read the same fast weights before these are written."""

    @property
    def lookahead(self) -> int:
        """l: token t is written once token t + l is known."""

    @property
    def border(self) -> Border:
        """Whether pairs across a chunk's end wait for their targets or are dropped."""

    @property
    def steps_keys(self) -> bool:
        """Whether every write also moves sub-keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One span of tokens that are addressed and read with the same fast weights.

    The first `num_written` of its tokens are written at its end; its first `num_repeated` tokens were
    answered by the window before and are read again only because they are written now.
    """

    start: int
    stop: int
    num_written: int
    num_repeated: int
    num_key_tokens: int
    """Leading tokens whose use of the sub-keys makes the key step; 0 where there is no step."""

    @property
    def num_tokens(self) -> int:
        """Tokens read."""
        return self.stop - self.start

    @property
    def num_recent(self) -> int:
        """Tokens read for the first time: those since the last border."""
        return self.num_tokens - self.num_repeated


@lru_cache(maxsize=256)
def plan_windows(
    num_tokens: int, options: Chunking, *, answered: int = 0, flush: bool = False
) -> tuple[Window, ...]:
    """Cut `num_tokens` tokens, the first of which begins a chunk, into windows.

    The first `answered` tokens were answered before the last border; they are read again to be written.

    "moved": window c holds the tokens [cC, (c+1)C + l) and writes the first C of them; a rest that is
    too short to be written (or, with `flush`, is written as far as its targets are known) comes last.
    "dropped": window c holds [cC, (c+1)C) and writes all but its last l; a shorter last one is written too.
    """
    if options.border == "dropped":
        return _dropped(num_tokens, options)
    return _moved(num_tokens, options, answered, flush)


def count_written(num_tokens: int, options: Chunking) -> int:
    """Count the leading tokens that `plan_windows` is done with; the others go on waiting."""
    if options.border == "dropped":
        return num_tokens
    return max(0, (num_tokens - options.lookahead) // options.chunk_size) * options.chunk_size


def count_before_write(num_waiting: int, options: Chunking) -> int:
    """Count the tokens that may still follow `num_waiting` ones before any of them is written."""
    if options.border == "dropped":
        return 0
    return max(0, options.chunk_size + options.lookahead - 1 - num_waiting)


def _moved(T: int, options: Chunking, answered: int, flush: bool) -> tuple[Window, ...]:
    C, ahead = options.chunk_size, options.lookahead
    done = count_written(T, options)
    windows = [
        Window(
            start=start,
            stop=start + C + ahead,
            num_written=C,
            num_repeated=ahead if start else answered,
            num_key_tokens=C if options.steps_keys else 0,
        )
        for start in range(0, done, C)
    ]
    rest = T - ahead - done
    if flush and rest > 0:
        keys = rest if options.steps_keys else 0
        repeated = ahead if done else answered
        windows.append(
            Window(start=done, stop=T, num_written=rest, num_repeated=repeated, num_key_tokens=keys)
        )
    elif (seen := done + ahead if done else answered) < T:
        windows.append(Window(start=seen, stop=T, num_written=0, num_repeated=0, num_key_tokens=0))
    return tuple(windows)


def _dropped(T: int, options: Chunking) -> tuple[Window, ...]:
    windows = []
    for start in range(0, T, options.chunk_size):
        stop = min(start + options.chunk_size, T)
        written = max(0, stop - start - options.lookahead)
        keys = stop - start if written and options.steps_keys else 0
        windows.append(
            Window(start=start, stop=stop, num_written=written, num_repeated=0, num_key_tokens=keys)
        )
    return tuple(windows)
