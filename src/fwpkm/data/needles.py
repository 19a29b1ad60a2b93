"""Needles in a haystack: facts hidden at known depths, questions about them, and where the answers are."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int

from fwpkm.data.haystack import Breaks, Haystack
from fwpkm.data.sequences import draw
from fwpkm.data.tokenizer.protocol import Tokenizer
from fwpkm.data.wording import NeedleWording
from fwpkm.nested import unknown_name

NeedleForm = Literal["paper", "single", "multi_key", "multi_value", "multi_query"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleTask:
    """Which facts are hidden and which are asked for."""

    num_keys: int = 5
    """Different keys in the haystack; those not asked for distract."""
    values_per_key: int = 1
    """Needles about each key, all with different values; all of them are wanted."""
    num_asked: int = 1
    """How many keys are asked about, in one question each."""
    wording: NeedleWording = field(default_factory=NeedleWording)

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {getattr(self, name)}"
            for name in ("num_keys", "values_per_key", "num_asked")
            if getattr(self, name) < 1
        ]
        if self.num_asked > self.num_keys:
            problems.append(f"num_asked must not exceed num_keys, got {self.num_asked} of {self.num_keys}")
        if problems:
            raise ValueError("NeedleTask: " + "; ".join(problems))


NEEDLE_FORMS: dict[str, NeedleTask] = {
    "paper": NeedleTask(num_keys=5),
    "single": NeedleTask(num_keys=1),
    "multi_key": NeedleTask(num_keys=4),
    "multi_value": NeedleTask(num_keys=1, values_per_key=4),
    "multi_query": NeedleTask(num_keys=4, num_asked=4),
}
"""The paper's task, and the forms of RULER (arXiv:2404.06654)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """One hidden fact."""

    key: str
    value: str
    start: int
    """Its first token's place in the context."""
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, and what must follow it."""

    key: str
    values: tuple[str, ...]
    """All values of the key, in the order of the context."""
    prompt: Int[np.ndarray, " Q"]
    answers: tuple[Int[np.ndarray, " _"], ...]
    """Tokens of each value, separator included; the model is to give them one after another."""

    @property
    def answer(self) -> Int[np.ndarray, " A"]:
        """Join the answers."""
        return np.concatenate(self.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleSample:
    """One document with questions. Equal arguments of `make_needle_sample` give equal samples, always."""

    context: Int[np.ndarray, " C"]
    """Haystack with needles: what may be read several times."""
    needles: tuple[Needle, ...]
    """In the order of the context."""
    questions: tuple[Question, ...]
    depth: float
    """Where the first asked key's first needle was wanted: 0 before the haystack, 1 after it."""
    seed: int

    @property
    def tokens(self) -> Int[np.ndarray, " T"]:
        """Return context, then each question with its answer."""
        return np.concatenate(
            [self.context, *(part for q in self.questions for part in (q.prompt, q.answer))]
        )

    @property
    def answer_spans(self) -> tuple[tuple[int, int], ...]:
        """Say where in `tokens` each question's answer starts and stops."""
        spans, at = [], len(self.context)
        for question in self.questions:
            at += len(question.prompt)
            spans.append((at, at := at + len(question.answer)))
        return tuple(spans)


class NeedleMaker:
    """Makes samples of one task in one haystack.

    Args:
        task: What to hide and ask, or the name of a form.
        tokenizer: Turns sentences into tokens.
        haystack: Where to hide them.

    Raises:
        ValueError: If there is no such form.
    """

    def __init__(self, task: NeedleTask | str, tokenizer: Tokenizer, haystack: Haystack) -> None:
        self.task = needle_task(task) if isinstance(task, str) else task
        self.tokenizer, self.haystack = tokenizer, haystack
        self._breaks = Breaks(tokenizer)

    def sample(self, *, length: int, depth: float, seed: int, snap: int = 64) -> NeedleSample:
        """Hide the needles in a haystack.

        Args:
            length: Tokens of context and questions together, answers not counted.
            depth: Where the asked needle is put: 0 first, 1 after the whole haystack. The others (and those of
                further questions) are put anywhere.
            seed: Decides all else.
            snap: How many tokens a needle may be moved to stand between sentences, or at least words.

        Raises:
            ValueError: If the depth is not in [0, 1], or the needles do not fit.
        """
        if not 0 <= depth <= 1:
            raise ValueError(f"NeedleMaker: depth must be in [0, 1], got {depth}")
        generator = draw(seed)
        facts = draw_facts(self.task, generator)
        asked = list(facts)[: self.task.num_asked]
        questions = tuple(make_question(self.task.wording, k, facts[k], self.tokenizer) for k in asked)
        sentences = [(k, v) for k, values in facts.items() for v in values]
        encoded = [encode_needle(self.task.wording, k, v, self.tokenizer) for k, v in sentences]
        room = length - sum(len(q.prompt) for q in questions) - sum(len(e) for e in encoded)
        if room < 0:
            raise ValueError(
                f"NeedleMaker: length must hold needles and questions, {length - room} tokens, got length={length}"
            )
        hay = self.haystack.take(room, generator)
        wanted = [depth, *torch.rand(len(sentences) - 1, generator=generator).tolist()]
        places = [self._breaks.nearest(hay, round(d * room), reach=snap) for d in wanted]
        context, spans = insert(hay, places, encoded)
        needles = [
            Needle(key=k, value=v, start=a, stop=b) for (k, v), (a, b) in zip(sentences, spans, strict=True)
        ]
        needles.sort(key=lambda needle: needle.start)
        ordered = tuple(_in_order(q, needles, self.task.wording, self.tokenizer) for q in questions)
        return NeedleSample(
            context=context, needles=tuple(needles), questions=ordered, depth=depth, seed=seed
        )


def needle_task(name: str) -> NeedleTask:
    """Return the task of a form.

    Raises:
        ValueError: If there is no such form.
    """
    if name not in NEEDLE_FORMS:
        raise ValueError(unknown_name("needle form", name, NEEDLE_FORMS))
    return NEEDLE_FORMS[name]


def draw_facts(task: NeedleTask, generator: torch.Generator) -> dict[str, tuple[str, ...]]:
    """Draw keys and their values, no key and no value twice."""
    keys = task.wording.draw_keys(task.num_keys, generator)
    values = task.wording.draw_values(task.num_keys * task.values_per_key, generator)
    each = task.values_per_key
    return {key: tuple(values[i * each : (i + 1) * each]) for i, key in enumerate(keys)}


def encode_needle(
    wording: NeedleWording, key: str, value: str, tokenizer: Tokenizer
) -> Int[np.ndarray, " T"]:
    """Turn a fact into the tokens of its sentence."""
    return tokenizer.encode(wording.needle.format(key=key, value=value), continuing=True)


def make_question(
    wording: NeedleWording, key: str, values: tuple[str, ...], tokenizer: Tokenizer
) -> Question:
    """Ask about a key; several values are separated by commas."""
    texts = [("," if i else "") + wording.answer.format(value=value) for i, value in enumerate(values)]
    return Question(
        key=key,
        values=values,
        prompt=tokenizer.encode(wording.question.format(key=key), continuing=True),
        answers=tuple(tokenizer.encode(text, continuing=True) for text in texts),
    )


def insert(
    hay: Int[np.ndarray, " T"], places: list[int], parts: list[np.ndarray]
) -> tuple[Int[np.ndarray, " U"], list[tuple[int, int]]]:
    """Put each part before the hay token at its place; return the whole and where each part came to stand."""
    pieces, spans, at, copied = [], [(0, 0)] * len(parts), 0, 0
    for i in sorted(range(len(parts)), key=lambda i: places[i]):
        pieces += [hay[copied : places[i]], parts[i]]
        start = at + places[i] - copied
        spans[i] = (start, at := start + len(parts[i]))
        copied = places[i]
    return np.concatenate([*pieces, hay[copied:]]), spans


def _in_order(
    question: Question, needles: list[Needle], wording: NeedleWording, tokenizer: Tokenizer
) -> Question:
    values = tuple(needle.value for needle in needles if needle.key == question.key)
    return question if values == question.values else make_question(wording, question.key, values, tokenizer)
