"""Needles are where they should be, and answers say what was hidden."""

import functools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.data.books import load_novel, novel_documents
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.haystack import Breaks, Haystack, ProseHaystack, WordHaystack
from fwpkm.data.needles import NEEDLE_FORMS, NeedleMaker, NeedleSample, NeedleTask
from fwpkm.data.sequences import draw
from fwpkm.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, train_bpe
from fwpkm.data.wording import NeedleWording

KINDS = ("bytes", "bpe", "mistral")
SNAP = 64


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    return train_bpe([load_novel()[:60_000]], vocab_size=600) if kind == "bpe" else load_tokenizer(kind)


@functools.cache
def prose(kind: str) -> Haystack:
    return ProseHaystack(TokenDocuments.from_texts([load_novel()[:60_000]], tokenizer(kind)))


@functools.cache
def maker(kind: str, form: str, words: bool = False) -> NeedleMaker:
    haystack = WordHaystack(tokenizer(kind)) if words else prose(kind)
    return NeedleMaker(form, tokenizer(kind), haystack)


def asked(sample: NeedleSample) -> str:
    return sample.questions[0].key


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("form", NEEDLE_FORMS)
@pytest.mark.parametrize("kind", KINDS)
@given(length=st.integers(500, 3000), depth=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_answer_spans_decode_to_the_hidden_values(
    kind: str, form: str, words: bool, length: int, depth: float, seed: int
) -> None:
    sample = maker(kind, form, words).sample(length=length, depth=depth, seed=seed)
    text = tokenizer(kind).decode(sample.context)
    hidden = re.findall(r"The secret number for ID-([a-z0-9]{4}) is (\d{6})\.", text)
    assert sorted(hidden) == sorted((n.key, n.value) for n in sample.needles)
    for question, (start, stop) in zip(sample.questions, sample.answer_spans, strict=True):
        answer = tokenizer(kind).decode(sample.tokens[start:stop])
        assert re.findall(r"\d{6}", answer) == list(question.values)
        assert [value for key, value in hidden if key == question.key] == list(question.values)
        before = sample.tokens[start - len(question.prompt) : start]
        assert question.key in tokenizer(kind).decode(before)


@pytest.mark.parametrize("kind", KINDS)
@given(length=st.integers(500, 3000), depth=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_the_asked_needle_is_where_depth_says(kind: str, length: int, depth: float, seed: int) -> None:
    sample = maker(kind, "paper").sample(length=length, depth=depth, seed=seed, snap=SNAP)
    needle = next(n for n in sample.needles if n.key == asked(sample))
    earlier = sum(n.stop - n.start for n in sample.needles if n.stop <= needle.start)
    hay = len(sample.context) - sum(n.stop - n.start for n in sample.needles)
    assert abs(needle.start - earlier - depth * hay) <= SNAP + 0.5


@pytest.mark.parametrize("kind", KINDS)
@given(length=st.integers(500, 3000), seed=st.integers(0, 2**40))
def test_the_prompt_has_exactly_the_length_asked_for(kind: str, length: int, seed: int) -> None:
    sample = maker(kind, "multi_query").sample(length=length, depth=0.5, seed=seed)
    prompts = sum(len(question.prompt) for question in sample.questions)
    assert len(sample.context) + prompts == length
    assert len(sample.tokens) == length + sum(len(question.answer) for question in sample.questions)


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_needles_the_context_is_the_haystack(kind: str) -> None:
    sample = maker(kind, "paper").sample(length=2000, depth=0.3, seed=5)
    keep = np.ones(len(sample.context), bool)
    for needle in sample.needles:
        keep[needle.start : needle.stop] = False
        text = tokenizer(kind).decode(sample.context[needle.start : needle.stop])
        assert text.strip() == f"The secret number for ID-{needle.key} is {needle.value}."
    assert tokenizer(kind).decode(sample.context[keep]).strip() in load_novel()


def test_equal_arguments_give_equal_samples_and_other_seeds_others() -> None:
    samples = [maker("bytes", "paper").sample(length=1000, depth=0.5, seed=seed) for seed in (1, 1, 2)]
    assert samples[0].tokens.tolist() == samples[1].tokens.tolist()
    assert samples[0].needles == samples[1].needles
    assert {n.value for n in samples[0].needles}.isdisjoint({n.value for n in samples[2].needles})


@pytest.mark.parametrize(
    ("form", "needles", "questions", "values"),
    [
        ("paper", 5, 1, 1),
        ("single", 1, 1, 1),
        ("multi_key", 4, 1, 1),
        ("multi_value", 4, 1, 4),
        ("multi_query", 4, 4, 1),
    ],
)
def test_forms_hide_and_ask_as_many_facts_as_their_source_says(
    form: str, needles: int, questions: int, values: int
) -> None:
    sample = maker("bytes", form).sample(length=1500, depth=0.5, seed=0)
    assert (len(sample.needles), len(sample.questions)) == (needles, questions)
    assert {len(question.values) for question in sample.questions} == {values}
    assert len({needle.value for needle in sample.needles}) == needles


def test_needles_stand_between_sentences_where_there_are_any() -> None:
    for seed in range(20):
        sample = maker("bytes", "paper").sample(length=4000, depth=0.5, seed=seed, snap=1000)
        for needle in sample.needles:
            before = ByteTokenizer().decode(sample.context[: needle.start])
            assert before[-1:] in ("", ".", "!", "?", '"')


def test_a_needle_never_tears_a_word_within_reach() -> None:
    text = "one two three four five six seven eight nine ten"
    tokens = ByteTokenizer().encode(text)
    for place in range(1, len(text) - 1):
        cut = Breaks(ByteTokenizer()).nearest(tokens, place, reach=8)
        assert text[cut] == " "
        assert abs(cut - place) <= 8
    assert Breaks(ByteTokenizer()).nearest(ByteTokenizer().encode("a" * 30), 7, reach=8) == 7
    assert [Breaks(ByteTokenizer()).nearest(tokens, place, reach=8) for place in (0, len(text))] == [
        0,
        len(text),
    ]


def test_wording_decides_what_is_said() -> None:
    wording = NeedleWording(
        needle="\n{key}={value};", question="\n{key}=", answer="{value}", key_length=2, digits=3
    )
    sample = NeedleMaker(NeedleTask(num_keys=3, wording=wording), ByteTokenizer(), prose("bytes")).sample(
        length=300, depth=0.5, seed=0
    )
    assert len(re.findall(r"\n[a-z0-9]{2}=\d{3};", ByteTokenizer().decode(sample.context))) == 3
    assert re.fullmatch(r"\n[a-z0-9]{2}=\d{3}", ByteTokenizer().decode(sample.tokens[-7:]))


def test_a_haystack_longer_than_any_document_joins_documents() -> None:
    documents = TokenDocuments.from_tokens([np.arange(1, 11), np.arange(11, 31)], eos_id=0)
    taken = ProseHaystack(documents).take(25, draw(0))
    assert len(taken) == 25
    assert 0 not in taken
    assert len(set(taken.tolist())) == 25
    with pytest.raises(ValueError, match="must hold 31 tokens, got 30"):
        ProseHaystack(documents).take(31, draw(0))


def test_prose_is_taken_from_every_place() -> None:
    documents = TokenDocuments.from_tokens([np.arange(1, 5), np.arange(11, 16)], eos_id=0)
    firsts = {int(ProseHaystack(documents).take(3, draw(i))[0]) for i in range(200)}
    assert firsts == {1, 2, 11, 12, 13}


def test_the_held_out_novel_gives_131072_tokens() -> None:
    _, held_out = novel_documents(ByteTokenizer())
    made = NeedleMaker("paper", ByteTokenizer(), ProseHaystack(held_out)).sample(
        length=131_072, depth=1.0, seed=0
    )
    assert made.needles[-1].key == asked(made)
    assert len(made.context) + len(made.questions[0].prompt) == 131_072


@pytest.mark.parametrize(("make", "message"), [
    (lambda: NeedleTask(num_keys=0, num_asked=2), r"num_keys must be at least 1, got 0; num_asked must not exceed"),
    (lambda: NeedleWording(needle="x", digits=0), r"must hold \{key\}.*must hold \{value\}.*digits must be"),
    (lambda: NeedleMaker("multi_kee", ByteTokenizer(), prose("bytes")), "did you mean 'multi_key'"),
    (lambda: maker("bytes", "paper").sample(length=2000, depth=1.5, seed=0), r"depth must be in \[0, 1\], got 1.5"),
    (lambda: maker("bytes", "paper").sample(length=200, depth=0.5, seed=0), "238 tokens, got length=200"),
    (
        lambda: NeedleMaker(
            NeedleTask(num_keys=11, wording=NeedleWording(digits=1)), ByteTokenizer(), prose("bytes")
        ).sample(length=2000, depth=0.5, seed=0),
        "only 10 codes of 1 characters, got 11",
    ),
])  # fmt: skip
def test_tasks_that_cannot_be_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_random_words_do_not_depend_on_how_many_are_asked_for_before() -> None:
    haystack = WordHaystack(ByteTokenizer(), ["ab", "cd"])
    generator = torch.Generator().manual_seed(0)
    first = ByteTokenizer().decode(haystack.take(10, generator))
    assert re.fullmatch(r"( (ab|cd))+ ?a?c?", first)
    assert haystack.take(0, generator).tolist() == []
