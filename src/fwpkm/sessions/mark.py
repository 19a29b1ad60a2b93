"""What sessions know at some time, as a value, and how reading moves it on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.engine import Progress, flushed, read_tokens
from fwpkm.sessions.join import join_caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One document that a session has read."""

    name: str
    start: int
    """Its first token, counted from the session's first."""
    stop: int
    """The token after its last one."""
    times: int = 1
    """How often it was read; `stop - start` counts all readings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a session knew at some time; a value."""

    cache: DecoderCache
    readings: tuple[Reading, ...] = ()
    before: tuple["Mark | None", ...] = ()
    """With a journal: what was known before each reading; None where that has been forgotten in part since."""
    ids: tuple[Int[Tensor, " _"], ...] = ()
    """With a journal: the tokens so far."""

    @property
    def tokens_seen(self) -> int:
        """Tokens so far."""
        return int(self.cache.tokens_seen[0])


def read_documents(
    model: Decoder,
    marks: Sequence[Mark],
    ids: Sequence[Int[Tensor, " _"]],
    names: Sequence[str | None],
    *,
    times: int,
    piece: int,
    journal: bool = False,
    progress: Progress | None = None,
) -> list[Mark]:
    """Return what each session knows once it has read its own document, all read at once.

    Raises:
        ValueError: If `times` is below 1.
    """
    if times < 1:
        raise ValueError(f"MemorySession.read: times must be at least 1, got times={times}")
    ids = [own.repeat(times) for own in ids]
    cache = join_caches([mark.cache for mark in marks])
    _, cache = read_tokens(model, cache, ids, piece=piece, progress=progress)
    cache = flushed(cache)
    return [
        _moved_on(mark, _one_of(cache, b), own, name, times, journal)
        for b, (mark, own, name) in enumerate(zip(marks, ids, names, strict=True))
    ]


def _moved_on(
    mark: Mark, cache: DecoderCache, ids: Tensor, name: str | None, times: int, journal: bool
) -> Mark:
    start, count = mark.tokens_seen, len(mark.readings)
    name = name or f"document {count + 1}"
    reading = Reading(name=name, start=start, stop=start + len(ids), times=times)
    return Mark(
        cache=cache,
        readings=(*mark.readings, reading),
        before=(*mark.before, mark) if journal else (),
        ids=(*mark.ids, ids) if journal else (),
    )


def _one_of(cache: DecoderCache, b: int) -> DecoderCache:
    return (
        cache if cache.num_streams == 1 else cache.select(torch.tensor([b], device=cache.tokens_seen.device))
    )
