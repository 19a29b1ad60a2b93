"""One model's memory of what one reader has read: ask it, save it, fork it, take it back."""

import os
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.data.tokenizer import Tokenizer
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.saving import SaveReport, load_state
from fwpkm.models.cache import CACHE_CLASSES, DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.nested import unknown_name
from fwpkm.sessions.answer import AnswerText
from fwpkm.sessions.engine import Progress, Sampling, flushed, fresh_cache, generate, read_tokens
from fwpkm.sessions.mark import Mark, Reading, read_documents
from fwpkm.sessions.provenance import SourceToken, find_sources, forget_tokens


class MemorySession:
    """Read texts into a model's memory, and ask about them.

    Everything that a session knows is one value (`mark`), so forks, marks and rollbacks cost nothing, and no
    session ever sees what another one reads.

    >>> session = MemorySession(model, tokenizer)
    >>> session.read(book, times=2)
    >>> print(session.ask("Who killed the miller?"))
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        mark: Mark | None = None,
        *,
        piece_tokens: int = 2048,
        journal: bool = False,
    ) -> None:
        """Begin with nothing read, or at a mark of another session of this model.

        Args:
            model: Must not be trained on while sessions use it.
            tokenizer: The one that it was trained with.
            mark: Where to begin.
            piece_tokens: Tokens that are read at once: more are faster and take more memory.
            journal: Note every write, for `why` and `forget`; costs several times the memory, and is not saved.
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
        self.keeps_journal = journal
        self._mark = self._nothing() if mark is None else mark

    def _nothing(self) -> Mark:
        cache = fresh_cache(self.model)
        return Mark(cache=cache.with_journal() if self.keeps_journal else cache)

    def mark(self) -> Mark:
        """Return what this session knows now, to come back to."""
        return self._mark

    def rollback(self, *, to: Mark) -> None:
        """Forget everything since a mark was taken."""
        self._mark = to

    def reset(self) -> None:
        """Forget everything."""
        self._mark = self._nothing()

    def fork(self) -> "MemorySession":
        """Return a session that knows the same and goes its own way; costs nothing."""
        return MemorySession(
            self.model,
            self.tokenizer,
            self._mark,
            piece_tokens=self.piece_tokens,
            journal=self.keeps_journal,
        )

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
        return self._mark.tokens_seen

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
        (self._mark,) = read_documents(
            self.model,
            [self._mark],
            [self.encode(text, continuing=self.tokens_seen > 0)],
            [name],
            times=times,
            piece=self.piece_tokens,
            journal=self.keeps_journal,
            progress=progress,
        )

    def ask(self, prompt: str, sampling: Sampling = Sampling(), *, keep: bool = False) -> str:  # noqa: B008 - frozen
        """Return the model's continuation of `prompt`.

        Args:
            prompt: What to ask.
            sampling: How the answer is drawn.
            keep: Whether the session remembers question and answer; otherwise it stays as it was.

        Raises:
            ValueError: If the prompt is empty: what was read last is not kept, only what it wrote.
        """
        return "".join(self.stream(prompt, sampling, keep=keep))

    def stream(self, prompt: str, sampling: Sampling = Sampling(), *, keep: bool = False) -> Iterator[str]:  # noqa: B008
        """Yield the answer bit by bit; what `ask` would return, once all bits are joined."""
        answer, said = AnswerText(self.tokenizer, sampling.stop), list[int]()
        ids = self.encode_prompt(prompt)
        hidden, cache = read_tokens(self.model, self.cache, [ids], piece=self.piece_tokens)
        steps = generate(self.model, cache, hidden, sampling, lambda _, token: not answer.ended)
        for tokens, seen in steps:
            cache, said = seen, [*said, tokens[0]]
            if new := answer.add(tokens[0]):
                yield new
        if new := answer.finish():
            yield new
        if keep:
            _, cache = read_tokens(self.model, cache, [torch.tensor(said[-1:])], piece=1)
            kept = torch.cat((ids, torch.tensor(said)))
            self._mark = replace(self._mark, cache=flushed(cache), ids=self._noted(kept))

    def why(self, prompt: str, answer: str = "", *, most: int = 10) -> list[SourceToken]:
        """Name the tokens of what was read that an answer comes from, the strongest first.

        Args:
            prompt: What was asked.
            answer: What was answered; left out, what the prompt's last token reads.
            most: How many sources to name.

        Raises:
            ValueError: If no journal is kept, or the prompt is empty.
        """
        ids, more = self.encode_prompt(prompt), self.encode(answer, continuing=True)
        # The token before an answer's token is the one that asks for it.
        last = max(1, len(more))
        asked = torch.cat((ids, more))[: len(ids) + last - 1]
        return find_sources(self.model, self.cache, asked, last=last, most=most)

    def text_around(self, token: int, *, reach: int = 20) -> str:
        """Return the text from `reach` tokens before a token that was read to `reach` tokens after it.

        Raises:
            ValueError: If no journal is kept.
        """
        if not self.keeps_journal:
            raise ValueError(
                "MemorySession.text_around: the session keeps no journal; make it with journal=True"
            )
        ids = torch.cat(self._mark.ids) if self._mark.ids else torch.zeros(0, dtype=torch.int64)
        return self.tokenizer.decode(ids[max(0, token - reach) : token + reach + 1].numpy())

    def forget(self, name: str) -> None:
        """Take one document's writes out of memory again.

        The last document is forgotten exactly: the session is what it was before. For an earlier one the limits
        are those of `fwpkm.memory.forget.forget`, and token mixers (attention, recurrences, convolutions) stay
        what they are: they have read on since.

        Raises:
            ValueError: If no journal is kept, or no document is called so.
        """
        if not self.keeps_journal:
            raise ValueError("MemorySession.forget: the session keeps no journal; make it with journal=True")
        names = [reading.name for reading in self.readings]
        if name not in names:
            raise ValueError(f"MemorySession.forget: {unknown_name('document', name, names)}")
        place = len(names) - 1 - names[::-1].index(name)
        mark, reading = self._mark, self.readings[place]
        if (before := mark.before[place]) is not None and reading.stop == self.tokens_seen:
            self._mark = before
            return
        self._mark = replace(
            mark,
            cache=forget_tokens(mark.cache, reading.start, reading.stop),
            readings=mark.readings[:place] + mark.readings[place + 1 :],
            # What was known before a later document knew this one.
            before=mark.before[:place] + (None,) * (len(names) - place - 1),
        )

    def _noted(self, ids: Int[Tensor, " T"]) -> tuple[Int[Tensor, " _"], ...]:
        return (*self._mark.ids, ids) if self.keeps_journal else ()

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

    def encode_prompt(self, prompt: str) -> Int[Tensor, " T"]:
        """Turn what is asked into tokens.

        Raises:
            ValueError: If there is none.
        """
        ids = self.encode(prompt, continuing=True)
        if not len(ids):
            raise ValueError("MemorySession: the prompt must have a token, got an empty one")
        return ids

    def encode(self, text: str, *, continuing: bool = False) -> Int[Tensor, " T"]:
        """Turn text into tokens."""
        return torch.from_numpy(self.tokenizer.encode(text, continuing=continuing).copy())
