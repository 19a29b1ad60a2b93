"""A document in a model's memory, to look at and to ask."""

from dataclasses import dataclass

from fwpkm.data.tokenizer import Tokenizer
from fwpkm.inspect.pieces import token_pieces
from fwpkm.inspect.recording import record, slot_memories
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.engine import Progress, Sampling
from fwpkm.sessions.mark import Mark
from fwpkm.sessions.provenance import SourceToken
from fwpkm.sessions.session import MemorySession

MOST_TOKENS = 20_000
"""Tokens of all readings together: above this a page gets too heavy for a browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was answered after some readings, and where it came from."""

    question: str
    reading: int
    """How often the document had been read, counted from 1."""
    text: str
    sources: tuple[SourceToken, ...]
    """The strongest first; none where no memory has slots."""


class Inspection:
    """A model's memory after reading one document one or several times.

    >>> inspection = Inspection(model, tokenizer, text, title="book.txt", times=2)
    >>> inspection.ask("Who killed the miller?", reading=2).sources
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        text: str,
        *,
        title: str,
        times: int = 1,
        piece: int = 2048,
        most_tokens: int = MOST_TOKENS,
        progress: Progress | None = None,
    ) -> None:
        """Read the document with everything noted.

        Args:
            model: Must have a memory in some layer.
            tokenizer: The one that it was trained with.
            text: The document.
            title: What to call it.
            times: How often to read it.
            piece: Tokens that are read at once.
            most_tokens: Refuse a document of more tokens, all readings together.
            progress: Told how many tokens are done, and how many there are.

        Raises:
            ValueError: If document and model have nothing to show, or too much.
        """
        self.model, self.tokenizer, self.title = model, tokenizer, title
        ids = MemorySession(model, tokenizer).encode(text)
        if len(ids) * times > most_tokens:
            raise ValueError(
                f"inspect: the readings must have at most {most_tokens} tokens together, got {len(ids)} tokens read "
                f"{times} times; show a part of the document, or read it fewer times"
            )
        self.recording = record(model, ids, times=times, piece=piece, progress=progress)
        self.pieces = token_pieces(tokenizer, ids.tolist())
        """The text of each token."""

    def session(self, reading: int) -> MemorySession:
        """Return a session that has read the document `reading` times, with its journal.

        Raises:
            ValueError: If it was not read so often.
        """
        times = self.recording.times
        if not 1 <= reading <= times:
            raise ValueError(f"inspect: reading must be from 1 to {times}, got reading={reading}")
        cache = self.recording.caches[reading - 1]
        mark = Mark(cache=cache, ids=(self.recording.ids.repeat(reading),))
        return MemorySession(self.model, self.tokenizer, mark, journal=True)

    def ask(
        self,
        question: str,
        *,
        reading: int,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        most: int = 12,
    ) -> Answer:
        """Ask what is in memory after `reading` readings, and name at most `most` tokens that the answer is from.

        Raises:
            ValueError: If the document was not read so often, or the question is no text for the tokenizer.
        """
        session = self.session(reading)
        if not len(session.encode(question, continuing=True)):
            raise ValueError("inspect: a question must have a token, got an empty one")
        text = session.ask(question, sampling)
        slots = slot_memories(session.cache)
        sources = session.why(question, text, most=most) if slots else []
        return Answer(question=question, reading=reading, text=text, sources=tuple(sources))
