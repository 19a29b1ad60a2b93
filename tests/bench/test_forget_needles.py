"""A trained model forgets one document's facts and keeps the others'; the benchmark notices one that does not."""

import json

import pytest
from bench_scripts import load_script

from fwpkm.cli.session_options import load_reader
from fwpkm.sessions.session import MemorySession

SIZES = {"needles": 4, "least": 400, "most": 600}


@pytest.fixture(scope="module")
def script():
    return load_script("forget_needles")


@pytest.fixture(scope="module")
def reader():
    return load_reader("small", "cpu")


def experiment(script, reader, **changes):
    plan = script.Plan(**{"sessions": 2, "documents": 3, **SIZES, **changes})
    maker = script.DocumentMaker("novel", reader[1], **SIZES)
    return script.Experiment(*reader, lambda number, place: maker.document(plan.seed, number, place), plan)


def test_forgotten_facts_are_gone_and_the_others_stay(script, reader):
    done = experiment(script, reader)
    assert list(done.run()) == [1, 2]
    known = sum(done.before[1:], done.before[0])
    assert known.questions == 24
    assert known.right >= 18, "the model must know the facts, or forgetting shows nothing"
    for found in done.places:
        assert found.forgotten.questions == found.never.questions == 8
        assert (found.forgotten.right, found.never.right) == (0, 0)
        # What is left of them is what chance gives: digits of documents never read cost as much.
        assert found.forgotten.nats > 0.7 * found.never.nats
        assert found.forgotten.nats > 10 * done.before[found.place].nats
        # 16 questions, of which a slot that several wrote may turn one.
        assert found.others.right >= found.others_before.right - 1
        assert found.own_slots > 0
    assert done.exact_last == 2
    assert done.places[-1].equal_tables == 2
    assert done.places[-1].shared_slots == 0 < done.places[0].shared_slots
    assert done.places[-1].others == done.places[-1].others_never


def test_a_session_that_forgets_nothing_is_noticed(script, reader, monkeypatch):
    monkeypatch.setattr(MemorySession, "forget", lambda self, name: None)
    done = experiment(script, reader, sessions=1, documents=2)
    list(done.run())
    assert any("forgotten facts are found" in text for text in done.problems)
    assert any("exact in 0 of 1" in text for text in done.problems)


def test_a_session_that_forgets_everything_is_noticed(script, reader, monkeypatch):
    monkeypatch.setattr(MemorySession, "forget", lambda self, name: self.reset())
    done = experiment(script, reader, sessions=1, documents=2)
    list(done.run())
    assert any("others' facts are lost" in text for text in done.problems)


def test_the_script_writes_what_it_counted(script, tmp_path, capsys):
    out = tmp_path / "forget.json"
    sizes = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
    script.main(["small", "--sessions", "1", "--documents", "2", *sizes, "--out", str(out)])
    kept = json.loads(out.read_text())
    assert kept["plan"]["documents"] == len(kept["places"]) == 2
    assert kept["sessions"] == 1
    assert kept["origin"]["commit"]
    assert "document 2" in capsys.readouterr().out
