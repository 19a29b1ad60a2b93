"""Recall tasks inside training text: facts, then questions, at a chosen rate."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int

from fwpkm.data.haystack import Breaks, Haystack
from fwpkm.data.needles import NeedleTask, draw_facts, encode_needle, insert, make_question
from fwpkm.data.sequences import SequenceSource, TokenSequence, draw
from fwpkm.data.tokenizer.protocol import Tokenizer
from fwpkm.data.wording import WORDINGS, NeedleWording, find_wording
from fwpkm.nested import unknown_name

_Fact = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallConfig:
    """How recall tasks are mixed into training sequences."""

    rate: float = 0.5
    """Share of the sequences that carry a recall task, 0 to 1."""
    min_needles: int = 1
    max_needles: int = 5
    """How many facts a task has is drawn uniformly from min_needles to max_needles."""
    start_rate: float = 0.0
    """Share of the tasks of which one fact stands before all prose, 0 to 1: where a text begins, few tokens are in
    sight, and a fact looks unlike the same fact anywhere else."""
    num_questions: int | None = None
    """How many of the facts are asked for, at most; None is all."""
    answer_weight: float = 1.0
    """What each answer token counts in the loss; prose tokens count `text_weight`."""
    text_weight: float = 1.0
    """What all other tokens of a recall sequence count."""
    wording: NeedleWording = field(default_factory=NeedleWording)
    """What facts and questions say where `wordings` is empty."""
    wordings: tuple[str, ...] = ()
    """Names of `WORDINGS`: each task speaks in one of them. Facts and questions that do not fit are left out."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be in [0, 1], got {getattr(self, name)}"
            for name in ("rate", "start_rate")
            if not 0 <= getattr(self, name) <= 1
        ]
        if not 1 <= self.min_needles <= self.max_needles:
            problems.append(
                f"1 <= min_needles <= max_needles must hold, got {self.min_needles} and {self.max_needles}"
            )
        if self.num_questions is not None and self.num_questions < 1:
            problems.append(f"num_questions must be at least 1 or unset, got {self.num_questions}")
        problems += [
            f"{name} must not be negative, got {getattr(self, name)}"
            for name in ("answer_weight", "text_weight")
            if getattr(self, name) < 0
        ]
        problems += [
            unknown_name("wording", name, WORDINGS) for name in self.wordings if name not in WORDINGS
        ]
        if problems:
            raise ValueError("RecallConfig: " + "; ".join(problems))


class RecallSequences:
    """Training sequences of which a share asks at its end for facts that stood further up.

    Args:
        plain: Gives the sequences without a task; their length is everyone's.
        haystack: What the facts are hidden in.
        tokenizer: Turns sentences into tokens.
        config: Rate, number of facts, loss weights.
        seed: Decides which sequences carry a task, and which.

    Raises:
        ValueError: If the facts and their questions do not fit into a sequence.
    """

    def __init__(
        self,
        plain: SequenceSource,
        haystack: Haystack,
        tokenizer: Tokenizer,
        config: RecallConfig,
        *,
        seed: int = 0,
    ) -> None:
        self.plain, self.haystack, self.tokenizer, self.config = plain, haystack, tokenizer, config
        self.seq_len, self.seed = plain.seq_len, seed
        self._breaks = Breaks(tokenizer)
        self._check_room()

    def sequence(self, index: int) -> TokenSequence:
        """Make sequence `index`."""
        generator = draw(self.seed, index)
        if float(torch.rand((), generator=generator)) >= self.config.rate:
            return self.plain.sequence(index)
        config = self.config
        count = int(torch.randint(config.min_needles, config.max_needles + 1, (), generator=generator))
        return self._recall(count, generator)

    def _recall(self, count: int, generator: torch.Generator) -> TokenSequence:
        wording = self._wording(generator)
        facts = draw_facts(NeedleTask(num_keys=count, wording=wording), generator)
        order = torch.randperm(count, generator=generator).tolist()
        needles, tail, answered = self._fitting(wording, list(facts.items()), order)
        hay = self.haystack.take(self.seq_len + 1 - len(tail) - sum(len(n) for n in needles), generator)
        wanted = torch.rand(count, generator=generator).tolist()[: len(needles)]
        if self.config.start_rate and float(torch.rand((), generator=generator)) < self.config.start_rate:
            wanted[0] = 0.0
        places = [self._breaks.nearest(hay, round(d * len(hay)), reach=16) for d in wanted]
        context, _ = insert(hay, places, needles)
        marks = np.concatenate([np.zeros(len(context), bool), answered])
        weights = np.where(marks, self.config.answer_weight, self.config.text_weight)
        return TokenSequence(tokens=np.concatenate([context, tail]), weights=weights[1:].astype(np.float32))

    def _wording(self, generator: torch.Generator) -> NeedleWording:
        names = self.config.wordings
        if not names:
            return self.config.wording
        return find_wording(names[int(torch.randint(len(names), (), generator=generator))])

    def _fitting(
        self, wording: NeedleWording, facts: list[_Fact], order: list[int]
    ) -> tuple[list[np.ndarray], Int[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
        """Return facts, questions with answers, and which tokens are answers.

        Facts may fill half of the sequence, questions what is left; there is always one of each.
        """
        room, used = self.seq_len + 1, 0
        needles = [encode_needle(wording, key, value, self.tokenizer) for key, (value,) in facts]
        if self.config.wordings:
            ends = np.cumsum([len(needle) for needle in needles])
            needles = needles[: max(1, int((ends <= room // 2).sum()))]
            used = sum(len(needle) for needle in needles)
        tokens, marks = list[np.ndarray](), list[np.ndarray]()
        there = [i for i in order if i < len(needles)]
        for i in there[: self.config.num_questions]:
            asked, answered = self._question(wording, facts[i])
            if self.config.wordings and tokens and used + len(asked) > room:
                break
            used += len(asked)
            tokens.append(asked)
            marks.append(answered)
        return needles, np.concatenate(tokens), np.concatenate(marks)

    def _question(
        self, wording: NeedleWording, fact: _Fact
    ) -> tuple[Int[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
        """Return a question with its answer, and which tokens are the answer."""
        question = make_question(wording, *fact, self.tokenizer)
        parts = [question.prompt, question.answer, self.tokenizer.encode(".", continuing=True)]
        return np.concatenate(parts), np.concatenate([np.full(len(p), i == 1) for i, p in enumerate(parts)])

    def _check_room(self) -> None:
        config = self.config
        for wording in [find_wording(name) for name in config.wordings] or [config.wording]:
            count = 1 if config.wordings else config.max_needles
            facts = list(draw_facts(NeedleTask(num_keys=count, wording=wording), draw(0)).items())
            needles, tail, _ = self._fitting(wording, facts, list(range(count)))
            needed = len(tail) + sum(len(needle) for needle in needles)
            if config.rate > 0 and needed > self.seq_len + 1:
                raise ValueError(
                    f"RecallSequences: max_needles={count} with questions takes {needed} tokens, got "
                    f"seq_len={self.seq_len}; lower max_needles or num_questions"
                )
