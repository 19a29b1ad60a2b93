"""The needle examination: what counts as right, who remembers what, and what must not matter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from eval_readers import LookupReader, few, make_maker, make_tiny

from fwpkm.data.needles import NeedleSample, Question
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.needles import NeedleCell, NeedleSettings, measure_needles, sample_seed
from fwpkm.eval.reader import ModelReader
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.engine import Sampling, generate, read_tokens
from fwpkm.testing.systems import make_system
from fwpkm.testing.unchecked import build_unchecked


def shares(cells: list[NeedleCell], **conditions: object) -> set[float]:
    """Shares of right samples in the cells that fulfil the conditions."""
    chosen = [c for c in cells if all(getattr(c, name) == value for name, value in conditions.items())]
    assert chosen
    return {cell.right / cell.samples for cell in chosen}


def test_a_reader_that_looks_things_up_gets_everything_right() -> None:
    cells = list(measure_needles(LookupReader(), make_maker(), few()))
    assert shares(cells) == {1.0}
    assert [(c.length, c.depth, c.samples) for c in cells] == [
        (300, 0.0, 2), (300, 0.6, 2), (450, 0.0, 2), (450, 0.6, 2),
    ]  # fmt: skip
    assert {(c.tokens, c.tokens_right) for c in cells} == {(14, 14)}


def test_an_answer_that_stands_nowhere_in_the_document_is_not_found() -> None:
    class Hiding(type(make_maker())):
        def sample(self, **options: object) -> NeedleSample:
            sample = super().sample(**options)
            elsewhere = self.tokenizer.encode("x" * len(sample.context))
            return replace(sample, context=elsewhere)

    maker = make_maker()
    hiding = Hiding(maker.task, maker.tokenizer, maker.haystack)
    assert shares(list(measure_needles(LookupReader(), hiding, few()))) == {0.0}


def test_two_reads_feed_the_document_twice() -> None:
    cells = list(measure_needles(LookupReader(needed=2), make_maker(), few(reads=(1, 2, 3))))
    assert shares(cells, reads=1) == {0.0}
    assert shares(cells, reads=2) == shares(cells, reads=3) == {1.0}


def test_each_ablation_takes_the_right_memory_away() -> None:
    ablations = ("memory_off", "frozen_memory", "wrong_document")
    cells = list(measure_needles(LookupReader(), make_maker(), few(ablations=ablations)))
    assert shares(cells, variant="normal") == {1.0}
    for variant in ablations:
        assert shares(cells, variant=variant) == {0.0}, variant


def test_the_wrong_document_is_the_neighbours() -> None:
    reader = LookupReader()
    settings = few(ablations=("wrong_document",), lengths=(300,), depths=(0.5,))
    list(measure_needles(reader, make_maker(), settings))
    (own, other), swapped = reader.asked
    assert own.memory != other.memory
    assert swapped == (other, own)


def test_memories_are_fresh_for_each_sample_unless_carried() -> None:
    for carry, expected in ((False, {1}), (True, {1, 2, 3, 4})):
        reader = LookupReader()
        list(measure_needles(reader, make_maker(), few(samples=4, carry=carry)))
        assert {len(own.memory) for known in reader.asked for own in known} == expected


def test_each_number_of_reads_carries_a_memory_of_its_own() -> None:
    reader = LookupReader()
    list(measure_needles(reader, make_maker(), few(reads=(1, 3), carry=True, lengths=(300,))))
    assert sorted({len(own.memory) for known in reader.asked for own in known}) == [1, 2, 3, 6]


@pytest.mark.parametrize("flush", [True, False])
def test_the_memory_takes_in_the_last_tokens_only_if_asked_to(flush: bool) -> None:
    reader = LookupReader()
    list(measure_needles(reader, make_maker(), few(flush=flush)))
    assert {own.closed for known in reader.asked for own in known} == {flush}


def test_all_questions_of_a_sample_must_be_answered() -> None:
    class Forgetful(LookupReader):
        def ask(self, known, questions):
            guesses = super().ask(known, questions)
            if len(self.asked) % 4 == 0:  # the last of four questions
                guesses = [replace(guess, tokens=guess.tokens * 0) for guess in guesses]
            return guesses

    maker = make_maker("multi_query")
    cells = list(measure_needles(Forgetful(), maker, few(form="multi_query", batch_size=4)))
    assert shares(cells) == {0.0}
    assert {cell.tokens_right / cell.tokens for cell in cells} == {0.75}
    assert shares(list(measure_needles(LookupReader(), maker, few(form="multi_query")))) == {1.0}


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 3}, {"piece": 7}])
def test_results_depend_neither_on_the_batch_nor_on_the_pieces(change: dict[str, int]) -> None:
    def measure(batch_size: int = 8, piece: int = 2048) -> list[NeedleCell]:
        settings = few(lengths=(280,), ablations=("wrong_document", "memory_off"), batch_size=batch_size)
        return list(measure_needles(ModelReader(model, piece=piece), make_maker(), settings))

    model = make_tiny()
    for one, other in zip(measure(), measure(**change), strict=True):
        assert replace(one, nats=0.0) == replace(other, nats=0.0)
        assert one.nats == pytest.approx(other.nats, rel=1e-4)


def test_a_seed_decides_everything() -> None:
    def costs(seed: int) -> list[float]:
        settings = few(lengths=(280,), seed=seed)
        return [cell.nats for cell in measure_needles(ModelReader(make_tiny()), make_maker(), settings)]

    assert costs(1) == costs(1) != costs(2)


def test_no_two_samples_share_a_seed() -> None:
    seeds = [sample_seed(0, n, d, i) for n in (1, 2, 512) for d in (0.0, 0.5, 1.0) for i in range(9)]
    assert len(set(seeds)) == len(seeds)


def question(prompt: str, answer: np.ndarray) -> Question:
    return Question(key="k", values=("v",), prompt=ByteTokenizer().encode(prompt), answers=(answer,))


def test_no_guess_knows_the_answers_later_tokens() -> None:
    reader = ModelReader(make_tiny())
    known = reader.read(reader.fresh(1), [np.arange(40)])
    answer = np.array([11, 22, 33, 44, 55, 66, 77])
    (before,) = reader.ask(known, [question("Who?", answer)])
    for place in range(len(answer)):
        changed = np.concatenate([answer[:place], 100 + answer[place:]])
        (after,) = reader.ask(known, [question("Who?", changed)])
        assert (after.tokens[: place + 1] == before.tokens[: place + 1]).all()


@pytest.mark.parametrize("system", ["sliding_fwpkm", "mixed"])
def test_guesses_are_what_greedy_decoding_says_up_to_its_first_mistake(system: str) -> None:
    torch.manual_seed(3)
    model = Decoder(make_system(system)).eval()
    reader = ModelReader(model)
    known = reader.read(reader.fresh(1), [np.arange(40)])
    prompt = np.array([3, 1, 4])
    hidden, cache = read_tokens(model, known, [torch.from_numpy(prompt)], piece=8)
    said = [
        tokens[0] for tokens, _ in generate(model, cache, hidden, Sampling(max_tokens=7), lambda *_: True)
    ]
    asked = Question(key="k", values=("v",), prompt=prompt, answers=(np.array(said),))
    assert reader.ask(known, [asked])[0].tokens.tolist() == said
    for place in range(7):
        wrong = np.array([(t + (i == place)) % 40 for i, t in enumerate(said)])
        (guess,) = reader.ask(known, [replace(asked, answers=(wrong,))])
        assert guess.tokens[: place + 1].tolist() == said[: place + 1]


def test_asking_changes_nothing() -> None:
    reader = ModelReader(make_tiny())
    known = reader.read(reader.fresh(1), [np.arange(40)])
    asked = question("Who?", np.array([1, 2, 3]))
    first, second = (reader.ask(known, [asked])[0].nats for _ in range(2))
    assert (first == second).all()


def test_questions_of_different_lengths_are_asked_side_by_side() -> None:
    reader = ModelReader(make_tiny())
    asked = [question("Who?", np.array([1, 2, 3])), question("Who is there?", np.array([4, 5]))]
    both = reader.ask(reader.read(reader.fresh(2), [np.arange(40), np.arange(30)]), asked)
    for one, tokens, together in zip(asked, (40, 30), both, strict=True):
        (alone,) = reader.ask(reader.read(reader.fresh(1), [np.arange(tokens)]), [one])
        assert together.nats == pytest.approx(alone.nats, rel=1e-4)


def test_settings_name_everything_that_is_wrong() -> None:
    with pytest.raises(
        ValueError, match=r"samples must be at least 1.*depths must be in \[0, 1\], got 1.5"
    ) as error:
        build_unchecked(NeedleSettings, samples=0, depths=(1.5,), reads=(5,), ablations=("memory_of",))
    assert "reads must be in [1, 4], got 5" in str(error.value)
    assert "did you mean 'memory_off'" in str(error.value)
    with pytest.raises(ValueError, match="must be even, got samples=3"):
        NeedleSettings(samples=3, ablations=("wrong_document",))
    with pytest.raises(ValueError, match="with carry=True"):
        NeedleSettings(carry=True, ablations=("memory_off",))
    with pytest.raises(ValueError, match="lengths must not be empty and name nothing twice"):
        NeedleSettings(lengths=(5, 5))


def test_a_model_without_memory_has_none_to_take_away() -> None:
    reader = ModelReader(Decoder(make_system("full", vocab_size=259)))
    with pytest.raises(ValueError, match="no memory of its own, got memory_off"):
        list(measure_needles(reader, make_maker(), few(ablations=("memory_off",))))
    with pytest.raises(ValueError, match="got carry"):
        list(measure_needles(reader, make_maker(), few(carry=True)))


def test_streams_that_share_a_memory_are_read_one_by_one() -> None:
    config = make_system("sliding_fwpkm", vocab_size=259)
    shared = replace(config, fwpkm=replace(config.fwpkm, table="batch"))
    reader = ModelReader(Decoder(shared))
    cells = list(measure_needles(reader, make_maker(), few(lengths=(280,), depths=(0.5,))))
    assert cells[0].samples == 2
    with pytest.raises(ValueError, match="one memory per stream"):
        list(measure_needles(reader, make_maker(), few(ablations=("wrong_document",))))
