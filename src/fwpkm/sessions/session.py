"""One model's memory of what one reader has read: ask it, save it, fork it, take it back."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.data.tokenizer import Tokenizer
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.saving import SaveReport, load_state
from fwpkm.models.cache import CACHE_CLASSES, DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.answer import AnswerText
from fwpkm.sessions.engine import Progress, Sampling, fresh_cache, generate, read_tokens
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


class MemorySession:
    """Read texts into a model's memory, and ask about them.

    Everything that a session knows is one value (`mark`), so forks, marks and rollbacks cost nothing, and no
    session ever sees what another one reads.

    >>> session = MemorySession(model, tokenizer)
    >>> session.read(book, times=2)
    >>> print(session.ask("Who killed the miller?"))
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, mark: Mark | None = None, *, piece_tokens: int = 2048
    ) -> None:
        """Begin with nothing read, or at a mark of another session of this model.

        Args:
            model: Must not be trained on while sessions use it.
            tokenizer: The one that it was trained with.
            mark: Where to begin.
            piece_tokens: Tokens that are read at once: more are faster and take more memory.
        """
        if piece_tokens < 1:
            raise ValueError(
                f"MemorySession: piece_tokens must be at least 1, got piece_tokens={piece_tokens}"
            )
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(
                f"MemorySession: the tokenizer must fit the model, got {tokenizer.vocab_size} tokens and "
                f"vocab_size={model.config.vocab_size}"
            )
        self.model, self.tokenizer, self.piece_tokens = model, tokenizer, piece_tokens
        self._mark = Mark(cache=fresh_cache(model)) if mark is None else mark

    def mark(self) -> Mark:
        """Return what this session knows now, to come back to."""
        return self._mark

    def rollback(self, *, to: Mark) -> None:
        """Forget everything since a mark was taken."""
        self._mark = to

    def reset(self) -> None:
        """Forget everything."""
        self._mark = Mark(cache=fresh_cache(self.model))

    def fork(self) -> "MemorySession":
        """Return a session that knows the same and goes its own way; costs nothing."""
        return MemorySession(self.model, self.tokenizer, self._mark, piece_tokens=self.piece_tokens)

    def freeze(self) -> None:
        """Let the memories only be read from now on."""
        self._mark = replace(self._mark, cache=self._mark.cache.freeze())

    def thaw(self) -> None:
        """Let the memories learn again."""
        self._mark = replace(self._mark, cache=self._mark.cache.thaw())

    @property
    def cache(self) -> DecoderCache:
        """What the model knows."""
        return self._mark.cache

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What was read, in order."""
        return self._mark.readings

    @property
    def tokens_seen(self) -> int:
        """Tokens read so far, those of kept questions and answers included."""
        return int(self.cache.tokens_seen[0])

    def read(
        self, text: str, *, times: int = 1, name: str | None = None, progress: Progress | None = None
    ) -> None:
        """Read a text, `times` times in a row, and write all of it to memory.

        Args:
            text: The document.
            times: How often; reading again helps a memory that was overwritten.
            name: What to call it; None numbers the documents.
            progress: Told how many tokens are done, and how many there are.

        Raises:
            ValueError: If `times` is below 1, or the text does not survive the tokenizer.
        """
        read_together([self], [text], times=times, names=[name], progress=progress)

    def ask(self, prompt: str, sampling: Sampling = Sampling(), *, keep: bool = False) -> str:  # noqa: B008 - frozen
        """Return the model's continuation of `prompt`.

        Args:
            prompt: What to ask.
            sampling: How the answer is drawn.
            keep: Whether the session remembers question and answer; otherwise it stays as it was.
        """
        return "".join(self.stream(prompt, sampling, keep=keep))

    def stream(self, prompt: str, sampling: Sampling = Sampling(), *, keep: bool = False) -> Iterator[str]:  # noqa: B008
        """Yield the answer bit by bit; what `ask` would return, once all bits are joined."""
        answer = AnswerText(self.tokenizer, sampling.stop)
        hidden, cache = read_tokens(
            self.model, self.cache, [self.encode(prompt, continuing=True)], piece=self.piece_tokens
        )
        steps = generate(self.model, cache, hidden, sampling, lambda _, token: not answer.ended)
        for tokens, seen in steps:
            cache, last = seen, tokens[0]
            if new := answer.add(last):
                yield new
        if new := answer.finish():
            yield new
        if keep:
            _, cache = read_tokens(self.model, cache, [torch.tensor([last])], piece=1)
            self._mark = replace(self._mark, cache=cache.flush())

    def save(
        self, path: str | os.PathLike[str], *, rows: RowFormat = "exact", checkpoint: str | None = None
    ) -> SaveReport:
        """Save all that this session knows to one file.

        Args:
            path: Replaced whole, once the new contents are on disk.
            rows: Precision of the tables' rows; see `SaveReport.loss`.
            checkpoint: Where the model lies, for `fwpkm ask`; only a note.
        """
        extra = {
            "readings": [
                {"name": r.name, "start": r.start, "stop": r.stop, "times": r.times} for r in self.readings
            ],
            "tokenizer": self.tokenizer.fingerprint,
            "checkpoint": checkpoint,
        }
        return self.cache.save(path, self.model, rows=rows, extra=extra)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        fingerprint: Fingerprint | None = None,
    ) -> "MemorySession":
        """Go on where a saved session was, with the same model.

        Args:
            path: A file that `save` wrote.
            model: The model that read.
            tokenizer: Its tokenizer.
            fingerprint: That of `model`, where it is known already.

        Raises:
            ValueError: If the file is damaged, or made by another model or tokenizer.
        """
        cache, extra = load_state(path, DecoderCache, model, classes=CACHE_CLASSES, fingerprint=fingerprint)
        if extra.get("tokenizer", tokenizer.fingerprint) != tokenizer.fingerprint:
            raise ValueError(
                f"memory file {os.fspath(path)!r}: was made with another tokenizer, got {tokenizer.name!r}; use "
                "the model's own"
            )
        if cache.num_streams != 1:
            raise ValueError(f"MemorySession.load: a session is one stream, got {cache.num_streams}")
        readings = tuple(Reading(**reading) for reading in extra.get("readings", ()))
        return cls(model, tokenizer, Mark(cache=cache, readings=readings))

    def encode(self, text: str, *, continuing: bool = False) -> Int[Tensor, " T"]:
        """Turn text into tokens."""
        return torch.from_numpy(self.tokenizer.encode(text, continuing=continuing).copy())


def read_together(
    sessions: Sequence[MemorySession],
    texts: Sequence[str],
    *,
    times: int = 1,
    names: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Let each session read its own text, all at once; see `MemorySession.read`.

    Raises:
        ValueError: If the sessions are not of one model, or there is not one text for each.
    """
    model = _one_model(sessions, texts, "texts")
    if times < 1:
        raise ValueError(f"MemorySession.read: times must be at least 1, got times={times}")
    names = [None] * len(sessions) if names is None else names
    encoded = [s.encode(text, continuing=s.tokens_seen > 0) for s, text in zip(sessions, texts, strict=True)]
    ids = [own.repeat(times) for own in encoded]
    cache = join_caches([session.cache for session in sessions])
    _, cache = read_tokens(model, cache, ids, piece=sessions[0].piece_tokens, progress=progress)
    cache = cache.flush()
    for b, (session, own, name) in enumerate(zip(sessions, ids, names, strict=True)):
        start, before = session.tokens_seen, session.readings
        reading = Reading(
            name=name or f"document {len(before) + 1}", start=start, stop=start + len(own), times=times
        )
        session.rollback(to=Mark(cache=_one_of(cache, b), readings=(*before, reading)))


def ask_together(
    sessions: Sequence[MemorySession],
    prompts: Sequence[str],
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
) -> list[str]:
    """Ask each session its own question, all at once; the sessions stay as they were.

    Raises:
        ValueError: If the sessions are not of one model, or there is not one prompt for each.
    """
    model = _one_model(sessions, prompts, "prompts")
    answers = [AnswerText(session.tokenizer, sampling.stop) for session in sessions]
    ids = [s.encode(prompt, continuing=True) for s, prompt in zip(sessions, prompts, strict=True)]
    cache = join_caches([session.cache for session in sessions])
    hidden, cache = read_tokens(model, cache, ids, piece=sessions[0].piece_tokens)
    for tokens, _ in generate(model, cache, hidden, sampling, lambda b, _: not answers[b].ended):
        for b, token in tokens.items():
            answers[b].add(token)
    return [answer.text for answer in answers]


def _one_model(sessions: Sequence[MemorySession], given: Sequence[str], what: str) -> Decoder:
    if not sessions or len(sessions) != len(given) or any(s.model is not sessions[0].model for s in sessions):
        raise ValueError(
            f"sessions: there must be one of {what} for each of one or more sessions of one model, got "
            f"{len(given)} for {len(sessions)} sessions of {len({id(s.model) for s in sessions})} models"
        )
    return sessions[0].model


def _one_of(cache: DecoderCache, b: int) -> DecoderCache:
    return (
        cache if cache.num_streams == 1 else cache.select(torch.tensor([b], device=cache.tokens_seen.device))
    )
