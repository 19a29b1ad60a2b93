"""Documents of prose with needles, and how well a memory that read some of them answers: for benchmarks of memories."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fwpkm.data.haystack import ProseHaystack
from fwpkm.data.needles import NeedleMaker, NeedleTask, Question, make_question
from fwpkm.data.sequences import draw
from fwpkm.data.shuffle import mix
from fwpkm.data.tokenizer import Tokenizer
from fwpkm.data.wording import NeedleWording
from fwpkm.eval.reader import ModelReader
from fwpkm.eval.result import Origin
from fwpkm.eval.text import open_documents
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text with facts in it, and the questions about all of them."""

    text: str
    questions: tuple[Question, ...]


class DocumentMaker:
    """Makes documents whose length is drawn uniformly; equal seeds give equal documents.

    Args:
        source: What `fwpkm eval --text` takes: a corpus folder (its held-out part), a text file or "novel".
        tokenizer: The model's.
        needles: Facts in each document.
        least: Tokens of the shortest document, needles included.
        most: Tokens of the longest one.
    """

    def __init__(self, source: str, tokenizer: Tokenizer, *, needles: int, least: int, most: int) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"DocumentMaker: 1 <= least <= most must hold, got {least} and {most}")
        task = NeedleTask(num_keys=needles, num_asked=needles)
        self.tokenizer, self.least, self.most = tokenizer, least, most
        self._maker = NeedleMaker(task, tokenizer, ProseHaystack(open_documents(source, tokenizer)))
        self._asked = needles * len(_any_question(tokenizer).prompt)

    def document(self, *place: int) -> Document:
        """Make the document of a place."""
        chance = draw(*place)
        size = int(torch.randint(self.least, self.most + 1, (), generator=chance))
        depth = float(torch.rand((), generator=chance))
        sample = self._maker.sample(length=size + self._asked, depth=depth, seed=mix(*place))
        return Document(text=self.tokenizer.decode(sample.context), questions=sample.questions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """How well some questions were answered."""

    questions: int = 0
    right: int = 0
    """All digits right."""
    digits: int = 0
    digits_right: int = 0
    """The right digits before each given; a guess is right once in ten."""
    nats: float = 0.0
    """Cost of all answers: -log p, summed."""

    @property
    def share(self) -> float:
        """Share of questions answered."""
        return self.right / self.questions

    def __add__(self, other: "Recall") -> "Recall":
        return Recall(
            questions=self.questions + other.questions,
            right=self.right + other.right,
            digits=self.digits + other.digits,
            digits_right=self.digits_right + other.digits_right,
            nats=self.nats + other.nats,
        )


@torch.no_grad()
def recall(model: Decoder, cache: DecoderCache, documents: Sequence[Document]) -> list[Recall]:
    """Ask what one session knows about each document, all questions at once; the session stays what it was."""
    questions = [question for document in documents for question in document.questions]
    streams = cache.without_journal().select(torch.zeros(len(questions), dtype=torch.int64))
    guesses = iter(ModelReader(model).ask(streams, questions))
    found = []
    for document in documents:
        pairs = [(question.answer, next(guesses)) for question in document.questions]
        found.append(sum((_one(answer, guess.tokens, guess.nats) for answer, guess in pairs), Recall()))
    return found


def _one(answer: np.ndarray, tokens: np.ndarray, nats: np.ndarray) -> Recall:
    # The first token of an answer is the space before it.
    hits = (answer == tokens)[1:]
    return Recall(
        questions=1,
        right=int((answer == tokens).all()),
        digits=len(hits),
        digits_right=int(hits.sum()),
        nats=float(nats.sum()),
    )


def _any_question(tokenizer: Tokenizer) -> Question:
    return make_question(NeedleWording(), "0000", ("000000",), tokenizer)


def origin_of(checkpoint: str, text: str, model: Decoder, tokenizer: Tokenizer) -> Origin:
    """Note what was measured, on what, by which command."""
    return Origin.of(
        model,
        name=checkpoint,
        checkpoint=checkpoint,
        text=text,
        tokenizer=f"{tokenizer.name} ({tokenizer.fingerprint})",
    )


def show_progress(done: int, total: int) -> None:
    """Show on a terminal how far it is."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} sessions ", end="\n" if done == total else "", file=sys.stderr, flush=True)
