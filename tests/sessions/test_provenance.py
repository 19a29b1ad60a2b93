"""Sessions that say where an answer comes from, and that forget a document."""

import copy

import pytest
import torch

from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.engine import Sampling
from fwpkm.sessions.session import MemorySession
from fwpkm.sessions.together import ask_together, read_together
from fwpkm.testing.systems import make_system

TEXTS = ("The first of three books.", "Another, of whales.", "The last is short.")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Decoder(make_system("sliding_fwpkm", vocab_size=259)).eval()


def new_session(model, texts=TEXTS, journal=True):
    session = MemorySession(model, ByteTokenizer(), journal=journal)
    for i, text in enumerate(texts):
        session.read(text, name=f"book {i}")
    return session


def tables(session):
    return [block.memory.table.dense() for block in session.cache.blocks if block.memory is not None]


def test_a_journal_changes_no_answer(model):
    few = Sampling(max_tokens=5)
    assert new_session(model).ask(" What", few) == new_session(model, journal=False).ask(" What", few)
    exact = copy.deepcopy(model).double()  # the compiled path adds several chunks up together
    for noted, plain in zip(
        tables(new_session(exact)), tables(new_session(exact, journal=False)), strict=True
    ):
        torch.testing.assert_close(noted, plain, rtol=0, atol=1e-12)


def test_sessions_with_a_journal_read_and_answer_together_with_others(model):
    sessions = [MemorySession(model, ByteTokenizer(), journal=journal) for journal in (True, False, True)]
    read_together(sessions, TEXTS, names=TEXTS)
    few = Sampling(max_tokens=5)
    answers = ask_together(sessions, [" What"] * 3, few)
    assert answers == [new_session(model, [text], journal=False).ask(" What", few) for text in TEXTS]
    for session, text in zip(sessions, TEXTS, strict=True):
        assert [reading.name for reading in session.readings] == [text]
    assert sessions[0].why(" What")
    before = tables(MemorySession(model, ByteTokenizer()))
    sessions[2].forget(TEXTS[2])
    assert all(torch.equal(a, b) for a, b in zip(tables(sessions[2]), before, strict=True))


def test_sources_are_tokens_that_wrote_the_slots_that_were_read(model):
    session = new_session(model)
    sources = session.why(" What is", " it", most=5)
    assert 0 < len(sources) <= 5
    assert [abs(s.weight) for s in sources] == sorted((abs(s.weight) for s in sources), reverse=True)
    with torch.no_grad():
        ids = session.encode(" What is it")[None, :-1]
        traces = model(ids, session.cache, trace=True).traces
    for source in sources:
        read = set(traces[source.layer].slots[0, -3:].flatten().tolist())
        journal = session.cache.blocks[source.layer].memory.table.journal
        wrote = {
            int(write.cells[i])
            for write in journal
            for row in (write.tokens == source.token).nonzero().flatten().tolist()
            for i in write.number[row].tolist()
        }
        assert read & wrote
        assert source.written == source.token + 1


def test_the_text_around_a_source_is_what_was_read(model):
    session = new_session(model)
    text = "".join(TEXTS)
    assert session.text_around(0, reach=4) == text[:5]
    assert session.text_around(30, reach=3) == text[27:34]
    session.ask(" Why", Sampling(max_tokens=3), keep=True)
    assert session.text_around(len(text) + 1, reach=1) == " Wh"
    assert len(torch.cat(session.mark().ids)) == session.tokens_seen


def test_the_last_document_is_forgotten_as_if_it_had_never_been_read(model):
    session, never = new_session(model), new_session(model, TEXTS[:2])
    session.forget("book 2")
    assert session.readings == never.readings
    for a, b in zip(tables(session), tables(never), strict=True):
        assert torch.equal(a, b)
    few = Sampling(max_tokens=5)
    assert session.ask(" What", few) == never.ask(" What", few)
    session.read("More.", name="more")
    session.forget("more")
    assert session.readings == never.readings


def test_an_earlier_document_leaves_no_row_behind_and_is_not_brought_back(model):
    session = new_session(model)
    both = tables(session)
    session.forget("book 1")
    assert [r.name for r in session.readings] == ["book 0", "book 2"]
    without = tables(session)
    assert any(not torch.equal(a, b) for a, b in zip(both, without, strict=True))
    start, stop = len(TEXTS[0]), len(TEXTS[0]) + len(TEXTS[1])
    for block in session.cache.blocks:
        if block.memory is not None:
            tokens = torch.cat([write.tokens for write in block.memory.table.journal])
            assert not ((tokens >= start) & (tokens < stop)).any()
    session.forget("book 2")
    session.forget("book 0")
    fresh = new_session(model, ())
    for a, b in zip(tables(session), tables(fresh), strict=True):
        assert torch.equal(a, b)


def test_forks_forget_for_themselves(model):
    session = new_session(model)
    before, fork = tables(session), session.fork()
    fork.forget("book 0")
    for a, b in zip(tables(session), before, strict=True):
        assert torch.equal(a, b)
    assert len(session.readings) == 3


def test_what_needs_a_journal_says_so(model, tmp_path):
    plain = new_session(model, journal=False)
    for call in (lambda: plain.why(" What"), lambda: plain.forget("book 0"), lambda: plain.text_around(3)):
        with pytest.raises(ValueError, match="journal=True"):
            call()
    session = new_session(model)
    with pytest.raises(ValueError, match="did you mean 'book 1'"):
        session.forget("book1")
    session.save(tmp_path / "x.fwpkm")
    loaded = MemorySession.load(tmp_path / "x.fwpkm", model, ByteTokenizer())
    assert loaded.readings == session.readings
    assert not loaded.keeps_journal
