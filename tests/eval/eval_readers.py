"""Readers to examine: a tiny model, and one that looks answers up in what it was given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fwpkm.data.haystack import WordHaystack
from fwpkm.data.needles import NeedleMaker, Question
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.needles import NeedleSettings
from fwpkm.eval.reader import Guess
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system


@dataclass(frozen=True)
class Known:
    """What one stream of a `LookupReader` knows."""

    memory: tuple[str, ...] = ()
    """Everything read, text by text."""
    silent: bool = False
    frozen: bool = False
    closed: bool = False


class LookupReader:
    """Answers if its memory holds the needle in so many texts; its token mixer remembers nothing."""

    has_memory = True
    shares_memory = False

    def __init__(self, *, needed: int = 1) -> None:
        self.needed = needed
        self.asked: list[tuple[Known, ...]] = []

    def fresh(self, num_streams: int) -> tuple[Known, ...]:
        return (Known(),) * num_streams

    def silence(self, known: tuple[Known, ...]) -> tuple[Known, ...]:
        return tuple(replace(own, silent=True) for own in known)

    def freeze(self, known: tuple[Known, ...]) -> tuple[Known, ...]:
        return tuple(replace(own, frozen=True) for own in known)

    def exchange(self, known: tuple[Known, ...]) -> tuple[Known, ...]:
        return tuple(known[i ^ 1] for i in range(len(known)))

    def carry_over(self, known: tuple[Known, ...]) -> tuple[Known, ...]:
        return tuple(replace(own, closed=False) for own in known)

    def close(self, known: tuple[Known, ...]) -> tuple[Known, ...]:
        return tuple(replace(own, closed=True) for own in known)

    def read(self, known: tuple[Known, ...], documents: Sequence[np.ndarray]) -> tuple[Known, ...]:
        texts = [ByteTokenizer().decode(document) for document in documents]
        return tuple(
            own if own.frozen else replace(own, memory=(*own.memory, text))
            for own, text in zip(known, texts, strict=True)
        )

    def ask(self, known: tuple[Known, ...], questions: Sequence[Question]) -> list[Guess]:
        self.asked.append(known)
        return [self._answer(own, question) for own, question in zip(known, questions, strict=True)]

    def _answer(self, own: Known, question: Question) -> Guess:
        prompt = ByteTokenizer().decode(question.prompt)
        found = [text.split(prompt)[1][:7] for text in own.memory if prompt in text and not own.silent]
        tokens = ByteTokenizer().encode(found[-1] if len(found) >= self.needed else "?" * 7)
        return Guess(tokens=tokens[: len(question.answer)], nats=np.zeros(len(question.answer)))


def make_maker(form: str = "paper") -> NeedleMaker:
    tokenizer = ByteTokenizer()
    return NeedleMaker(form, tokenizer, WordHaystack(tokenizer))


def few(**changes: object) -> NeedleSettings:
    """Few samples, all of the same two lengths."""
    settings = {"lengths": (300, 450), "depths": (0.0, 0.6), "reads": (1,), "samples": 2, **changes}
    return NeedleSettings(**settings)


def make_tiny() -> Decoder:
    """Sliding windows of 6 and two memories with chunks of 5, for bytes."""
    torch.manual_seed(0)
    return Decoder(make_system("sliding_fwpkm", vocab_size=259)).eval()
