"""Use and age of slots, against counts by hand and against the memory itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from eval_readers import make_tiny
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.data.documents import TokenDocuments
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.slot_use import distinct_so_far, read_ages
from fwpkm.eval.slots import SlotSettings, measure_slots
from fwpkm.eval.traces import trace_streams
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.engine import fresh_cache
from fwpkm.testing.systems import make_system

TEXT = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals."


def ages_by_definition(slots: np.ndarray, chunk_size: int, lookahead: int) -> np.ndarray:
    """For each read, the last token of a chunk written by then that read the same slot."""
    ages = np.full_like(slots, -1)
    for t, row in enumerate(slots):
        for j, slot in enumerate(row):
            for s in range(t):
                written_after = (s // chunk_size + 1) * chunk_size + lookahead - 1
                if written_after < t and slot in slots[s]:
                    ages[t, j] = t - s
    return ages


@given(
    slots=st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=25),
    chunk_size=st.integers(1, 6),
    lookahead=st.integers(0, 3),
)
def test_ages_are_those_of_the_definition(slots: list[list[int]], chunk_size: int, lookahead: int) -> None:
    tokens = np.array(slots)
    ages = read_ages(tokens, num_slots=6, chunk_size=chunk_size, lookahead=lookahead)
    assert (ages == ages_by_definition(tokens, chunk_size, lookahead)).all()


@given(slots=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=20))
def test_distinct_slots_are_counted_as_they_come(slots: list[list[int]]) -> None:
    marks = np.arange(len(slots) + 1)
    counts = distinct_so_far(np.array(slots), marks)
    assert counts.tolist() == [len({s for row in slots[:m] for s in row}) for m in marks]


@torch.no_grad()
def test_unwritten_slots_are_those_that_the_memory_has_not_written() -> None:
    config = make_system("sliding_fwpkm", vocab_size=259)
    # Where sub-keys move, a chunk's first tokens may write other slots than they read.
    model = Decoder(replace(config, fwpkm=replace(config.fwpkm, key_lr=0.0))).eval()
    ids = np.frombuffer(TEXT[:31].encode(), np.uint8).astype(np.int64)
    (traces,) = trace_streams(model, [ids], batch_size=1)
    config = model.config.fwpkm
    for trace in traces:
        ages = read_ages(
            trace.slots, num_slots=config.num_slots, chunk_size=config.chunk_size, lookahead=config.lookahead
        )
        cache = fresh_cache(model)
        for token, slots, own in zip(ids, trace.slots, ages, strict=True):
            written = cache.blocks[trace.layer].memory.table.store.index[0] >= 0
            assert (own >= 0).tolist() == written[slots].tolist()
            cache = model(torch.tensor([[int(token)]]), cache).cache


def documents(*texts: str) -> TokenDocuments:
    return TokenDocuments.from_texts(texts, ByteTokenizer())


def test_nothing_is_old_before_the_first_write() -> None:
    layers = measure_slots(make_tiny(), documents(TEXT), SlotSettings(length=5, max_runs=3))
    assert [layer.layer for layer in layers] == [0, 2]
    for layer in layers:
        assert (layer.unwritten, layer.median_age, layer.ages) == (1.0, None, ())
        assert layer.reads == 3 * 5 * 3


def test_what_is_measured_adds_up() -> None:
    for layer in measure_slots(make_tiny(), documents(TEXT), SlotSettings(length=90)):
        assert sum(age.share for age in layer.ages) + layer.unwritten == pytest.approx(1)
        assert layer.unwritten < 1
        assert layer.growth[0].slots == 3.0
        assert layer.growth[-1].tokens == 90
        assert layer.used == pytest.approx(layer.growth[-1].slots / min(64, 90 * 3))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_runs_of_different_lengths_do_not_meet(batch_size: int) -> None:
    model, settings = make_tiny(), SlotSettings(length=50, batch_size=batch_size)
    both = measure_slots(model, documents(TEXT[:50], TEXT[50:]), settings)
    alone = [measure_slots(model, documents(text), settings) for text in (TEXT[:50], TEXT[50:])]
    for layer, parts in zip(both, zip(*alone, strict=True), strict=True):
        assert layer.reads == sum(part.reads for part in parts)
        expected = sum(part.unwritten * part.reads for part in parts) / layer.reads
        assert layer.unwritten == pytest.approx(expected)


def test_a_model_without_slots_is_refused() -> None:
    for system, message in (
        ("full", "no memory of its own"),
        ("delta_fwmlp", "no memory of the model has slots"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_slots(Decoder(make_system(system, vocab_size=259)), documents(TEXT), SlotSettings())


@pytest.mark.parametrize("bad", [{"length": 1}, {"max_runs": 0}, {"batch_size": 0}])
def test_settings_are_checked(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be at least"):
        SlotSettings(**bad)
