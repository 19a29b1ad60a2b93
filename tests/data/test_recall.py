"""Recall tasks among training sequences."""

import functools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.data.books import novel_documents
from fwpkm.data.haystack import ProseHaystack
from fwpkm.data.recall import RecallConfig, RecallSequences
from fwpkm.data.sequences import PackedSequences
from fwpkm.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer

LENGTH = 600
FACT = re.compile(r"The secret number for ID-([a-z0-9]{4}) is (\d{6})\.")


@functools.cache
def parts(kind: str) -> tuple[Tokenizer, PackedSequences, ProseHaystack]:
    tokenizer = load_tokenizer(kind)
    train, _ = novel_documents(tokenizer)
    return tokenizer, PackedSequences(train, seq_len=LENGTH), ProseHaystack(train)


def recall(kind: str = "bytes", seed: int = 0, **config) -> RecallSequences:
    tokenizer, plain, haystack = parts(kind)
    return RecallSequences(plain, haystack, tokenizer, RecallConfig(**config), seed=seed)


@functools.cache
def all_tasks(kind: str) -> RecallSequences:
    return recall(kind, rate=1.0, text_weight=0.0, answer_weight=3.0)


@pytest.mark.parametrize("kind", ["bytes", "mistral"])
@given(index=st.integers(0, 10**9))
def test_every_question_repeats_a_fact_and_only_answers_are_weighted(kind: str, index: int) -> None:
    tokenizer, source = parts(kind)[0], all_tasks(kind)
    made = source.sequence(index)
    assert len(made.tokens) == LENGTH + 1
    assert made.weights is not None
    assert set(made.weights.tolist()) == {0.0, 3.0}
    said = FACT.findall(tokenizer.decode(made.tokens))
    facts, answers = said[: len(said) // 2], said[len(said) // 2 :]
    assert 1 <= len(facts) <= 5
    assert sorted(facts) == sorted(answers)
    weighted = tokenizer.decode(made.tokens[1:][made.weights > 0])
    assert "".join(weighted.split()) == "".join(value for _, value in answers)


def test_rate_is_the_share_of_sequences_with_a_task() -> None:
    source = recall(rate=0.3)
    tasks = sum(source.sequence(i).weights is not None for i in range(400))
    assert abs(tasks - 120) < 4 * np.sqrt(400 * 0.3 * 0.7)


def test_sequences_without_a_task_are_the_plain_ones() -> None:
    source = recall(rate=0.0)
    assert source.sequence(7).tokens.tolist() == parts("bytes")[1].sequence(7).tokens.tolist()


def test_fewer_questions_than_facts_are_asked_when_told_so() -> None:
    source = recall(rate=1.0, min_needles=4, max_needles=4, num_questions=1)
    assert len(FACT.findall(ByteTokenizer().decode(source.sequence(3).tokens))) == 5
    asked = {FACT.findall(ByteTokenizer().decode(source.sequence(i).tokens)).index(
        FACT.findall(ByteTokenizer().decode(source.sequence(i).tokens))[-1]) for i in range(40)}  # fmt: skip
    assert asked == {0, 1, 2, 3}


@pytest.mark.parametrize("wordings", [(), ("paper", "ruler_numbers")])
def test_so_many_tasks_begin_with_a_fact(wordings: tuple[str, ...]) -> None:
    source = recall(rate=1.0, start_rate=0.4, min_needles=2, wordings=wordings)
    tokenizer, _, _ = parts("bytes")
    begin = re.compile(r"\s*(The secret number for ID-|One of the special magic)")
    begun = sum(begin.match(tokenizer.decode(source.sequence(i).tokens)) is not None for i in range(400))
    assert abs(begun - 160) < 4 * np.sqrt(400 * 0.4 * 0.6)  # by chance, hardly any would


def test_equal_numbers_give_equal_sequences_and_seeds_differ() -> None:
    assert recall(rate=1.0).sequence(5).tokens.tolist() == recall(rate=1.0).sequence(5).tokens.tolist()
    assert (
        recall(rate=1.0).sequence(5).tokens.tolist() != recall(seed=1, rate=1.0).sequence(5).tokens.tolist()
    )


PATTERNS = {
    "paper": r"The secret number for ID-(?P<key>\w{4}) is (?P<value>\d{6})\.",
    "ruler_numbers": r"(?:magic numbers for|text\? The special magic number for) (?P<key>[a-z]+-[a-z]+)"
    r"(?: is:| mentioned in the provided text is) (?P<value>\d{7})\.",
    "ruler_uuids": r"(?:magic uuids for|text\? The special magic uuid for) (?P<key>[0-9a-f-]{36})"
    r"(?: is:| mentioned in the provided text is) (?P<value>[0-9a-f-]{36})\.",
}


@pytest.mark.parametrize("length", [300, 600])
def test_wordings_take_turns_and_hold_what_fits(length: int) -> None:
    tokenizer, _, haystack = parts("bytes")
    train, _ = novel_documents(tokenizer)
    config = RecallConfig(rate=1.0, min_needles=1, max_needles=8, answer_weight=3.0, wordings=tuple(PATTERNS))
    if length == 300:
        with pytest.raises(ValueError, match=r"takes \d+ tokens, got seq_len=300"):
            RecallSequences(PackedSequences(train, seq_len=length), haystack, tokenizer, config)
        return
    source = RecallSequences(PackedSequences(train, seq_len=length), haystack, tokenizer, config)
    seen, several = dict.fromkeys(PATTERNS, 0), 0
    for i in range(120):
        made = source.sequence(i)
        text = tokenizer.decode(made.tokens)
        assert len(made.tokens) == length + 1
        (name,) = [name for name, pattern in PATTERNS.items() if re.search(pattern, text)]
        said = [found.groups() for found in re.finditer(PATTERNS[name], text)]
        assert made.weights is not None
        answers = tokenizer.decode(made.tokens[1:][made.weights > 1]).split()
        facts, asked = said[: -len(answers)], said[-len(answers) :]
        assert [value for _, value in asked] == answers
        assert set(asked) <= set(facts)
        assert len(set(asked)) == len(asked)
        seen[name] += 1
        several += len(facts) > 1
    assert min(seen.values()) > 20
    assert several > 60


def test_few_questions_are_asked_of_facts_that_are_there() -> None:
    source = recall(rate=1.0, min_needles=8, max_needles=8, num_questions=1, wordings=("ruler_uuids",))
    for i in range(20):
        text = ByteTokenizer().decode(source.sequence(i).tokens)
        said = [found.groups() for found in re.finditer(PATTERNS["ruler_uuids"], text)]
        assert said[-1] in said[:-1]


@pytest.mark.parametrize(("config", "message"), [
    ({"wordings": ("ruler_number",)}, "unknown wording 'ruler_number'; did you mean 'ruler_numbers'"),
    ({"rate": 1.5, "answer_weight": -1.0}, r"rate must be in \[0, 1\], got 1.5; answer_weight must not be negative"),
    ({"min_needles": 3, "max_needles": 2}, "got 3 and 2"),
    ({"num_questions": 0}, "num_questions must be at least 1"),
    ({"max_needles": 8}, r"max_needles=8 with questions takes 656 tokens, got seq_len=600"),
])  # fmt: skip
def test_mixtures_that_cannot_be_are_refused(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recall(**config)
