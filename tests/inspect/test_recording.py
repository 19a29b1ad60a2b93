"""What an inspection shows is what the model did: traces, journals, tables and answers."""

import pytest
import torch
from inspect_helpers import TEXT, new_model

from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.inspect.inspection import Inspection
from fwpkm.inspect.pieces import token_pieces
from fwpkm.inspect.recording import record, slot_memories
from fwpkm.inspect.writers import find_writers
from fwpkm.sessions.engine import Sampling, fresh_cache
from fwpkm.sessions.session import MemorySession

IDS = torch.tensor(list(TEXT.encode()))


def test_each_reading_is_what_a_session_does(model, inspection):
    for times, cache in enumerate(inspection.recording.caches, 1):
        session = MemorySession(model, ByteTokenizer())
        session.read(TEXT, times=times)
        for layer, state in slot_memories(cache).items():
            own = session.cache.blocks[layer].memory
            assert state.tokens_seen == own.tokens_seen == (times * len(IDS),)
            torch.testing.assert_close(state.table.dense(), own.table.dense())
            torch.testing.assert_close(state.keys, own.keys)


@torch.no_grad()
def test_traces_of_pieces_are_those_of_one_call(model, inspection):
    whole = model(IDS.repeat(3)[None], fresh_cache(model), trace=True).traces
    T = len(IDS)
    for layer in (0, 2):
        for reading, traces in enumerate(inspection.recording.traces):
            span = slice(reading * T, (reading + 1) * T)
            torch.testing.assert_close(traces[layer].gate, whole[layer].gate[:, span])
            torch.testing.assert_close(traces[layer].weights, whole[layer].weights[:, span])
            assert torch.equal(traces[layer].slots, whole[layer].slots[:, span])
    assert all(traces[1] is None for traces in inspection.recording.traces)


@pytest.mark.parametrize("name", ["sliding_fwpkm", "mixed"])
def test_shares_of_writers_are_those_of_the_journal(name):
    model = new_model(name)
    recording = record(model, IDS, times=2, piece=23)
    for cache in recording.caches:
        for layer, state in slot_memories(cache).items():
            journal, num_slots = state.table.journal, model.config.memory(layer).num_slots
            writers = find_writers(journal, num_slots)
            assert torch.equal(writers.slots, state.table.written())
            expected = journal.writers(writers.slots)
            for slot, shares in zip(writers.slots.tolist(), expected, strict=True):
                own = writers.slot == slot
                assert set(writers.token[own].tolist()) == set(shares)
                for token, share in shares.items():
                    found = writers.share[own & (writers.token == token)].sum()
                    assert float(found) == pytest.approx(share, rel=1e-4, abs=1e-6)
            assert (writers.slot.diff() >= 0).all()
            same = writers.slot.diff() == 0
            assert (writers.token.diff()[same] >= 0).all()


def test_a_journal_without_writes_has_no_writers(model):
    state = slot_memories(fresh_cache(model).with_journal())[0]
    assert not len(find_writers(state.table.journal, 64).slots)


def test_an_answer_is_the_sessions_and_so_are_its_sources(model, inspection):
    few = Sampling(max_tokens=4)
    session = MemorySession(model, ByteTokenizer(), journal=True)
    session.read(TEXT, times=2)
    answer = inspection.ask("The secret is", reading=2, sampling=few, most=5)
    assert answer.text == session.ask("The secret is", few)
    expected = session.why("The secret is", answer.text, most=5)
    assert [(s.layer, s.token, s.written) for s in answer.sources] == [
        (s.layer, s.token, s.written) for s in expected
    ]
    assert [s.weight for s in answer.sources] == pytest.approx([s.weight for s in expected], rel=1e-4)
    assert len(answer.sources) == 5


def test_a_memory_without_slots_answers_without_sources():
    inspection = Inspection(new_model("delta_fwmlp"), ByteTokenizer(), TEXT, title="x")
    assert inspection.ask("Why", reading=1, sampling=Sampling(max_tokens=2)).sources == ()


def test_pieces_are_the_text_and_broken_characters_stand_at_their_first_token():
    text = "a\nčé漢🜁 <&>"
    ids = list(text.encode())
    pieces = token_pieces(ByteTokenizer(), ids)
    assert "".join(pieces) == text
    assert len(pieces) == len(ids)
    assert pieces[2:6] == ["č", "", "é", ""]
    assert pieces[6:13] == ["漢", "", "", "🜁", "", "", ""]
    assert token_pieces(ByteTokenizer(), [255, 97]) == ["\N{REPLACEMENT CHARACTER}", "a"]
    assert token_pieces(ByteTokenizer(), [257, 97]) == ["", "a"]
    surrogate = list("\ud800".encode("utf-8", "surrogatepass"))
    "".join(token_pieces(ByteTokenizer(), surrogate)).encode("utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ""}, "must have a token"),
        ({"times": 0, "piece": 0}, "times must be at least 1, got times=0; piece must be at least 1"),
        ({"most_tokens": 20}, f"got {len(IDS)} tokens read 1 times"),
        ({"model": "full"}, "must have a memory"),
    ],
)
def test_what_cannot_be_shown_says_so(model, changes, message):
    kinds = {"text": TEXT, "model": "sliding_fwpkm", **changes}
    own = new_model(kinds.pop("model"))
    with pytest.raises(ValueError, match=message):
        Inspection(own, ByteTokenizer(), kinds.pop("text"), title="x", **kinds)


def test_asking_what_is_not_there_says_so(inspection):
    with pytest.raises(ValueError, match="from 1 to 3, got reading=4"):
        inspection.ask("Why", reading=4)
    with pytest.raises(ValueError, match="a question must have a token"):
        inspection.ask("", reading=1)
