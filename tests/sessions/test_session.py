"""Sessions: what was read stays read, in files, forks and batches; answers change nothing."""

import io

import pytest
import torch

from fwpkm.cli.main import main
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import save_model
from fwpkm.sessions.answer import AnswerText
from fwpkm.sessions.engine import Sampling, fresh_cache, read_tokens
from fwpkm.sessions.join import join_caches
from fwpkm.sessions.session import MemorySession
from fwpkm.sessions.together import ask_together, read_together
from fwpkm.testing.systems import SYSTEMS, make_system
from fwpkm.testing.unchecked import build_unchecked

TEXT = "The secret number for ID-7f3a is 402817. It rained."
QUESTION = " The number for ID-7f3a is"
SHORT = Sampling(max_tokens=9)


def make_model(name="sliding_fwpkm", seed=0):
    torch.manual_seed(seed)
    return Decoder(make_system(name, vocab_size=259)).eval()


@pytest.fixture(scope="module")
def model():
    return make_model()


def new_session(model, **options):
    return MemorySession(model, ByteTokenizer(), **options)


def test_reading_in_pieces_is_reading_at_once(model):
    a, b = new_session(model), new_session(model, piece_tokens=7)
    for session in (a, b):
        session.read(TEXT)
    assert a.tokens_seen == b.tokens_seen == len(TEXT)
    assert a.ask(QUESTION, SHORT) == b.ask(QUESTION, SHORT)
    ids = torch.randint(256, (1, 5))
    torch.testing.assert_close(model(ids, a.cache).logits, model(ids, b.cache).logits)


def test_asking_changes_nothing_unless_it_is_to_be_kept(model):
    session = new_session(model)
    session.read(TEXT)
    mark, first = session.mark(), session.ask(QUESTION, SHORT)
    assert session.mark() is mark
    assert session.ask(QUESTION, SHORT) == first
    session.ask(QUESTION, SHORT, keep=True)
    assert session.tokens_seen == len(TEXT) + len(QUESTION) + 9
    session.rollback(to=mark)
    assert session.ask(QUESTION, SHORT) == first


def test_the_stream_is_the_answer_in_bits(model):
    session = new_session(model)
    session.read(TEXT)
    bits = list(session.stream(QUESTION, SHORT))
    assert "".join(bits) == session.ask(QUESTION, SHORT)
    assert len(bits) > 1


def test_reading_twice_writes_twice_and_is_noted(model):
    once, twice = new_session(model), new_session(model)
    once.read(TEXT, name="mill")
    once.read(TEXT, name="mill")
    twice.read(TEXT, times=2)
    assert once.tokens_seen == twice.tokens_seen == 2 * len(TEXT)
    reading = twice.readings[0]
    assert (reading.name, reading.start, reading.stop, reading.times) == ("document 1", 0, 2 * len(TEXT), 2)
    assert [r.start for r in once.readings] == [0, len(TEXT)]


def test_forks_marks_and_reset_never_see_each_other(model):
    session = new_session(model)
    session.read(TEXT)
    fork, mark, before = session.fork(), session.mark(), session.ask(QUESTION, SHORT)
    fork.read("Something else entirely. " * 3)
    assert session.ask(QUESTION, SHORT) == before
    session.read("And on it went. " * 4)
    session.rollback(to=mark)
    assert session.ask(QUESTION, SHORT) == before
    session.reset()
    assert session.tokens_seen == 0
    assert not session.readings
    assert fork.tokens_seen > len(TEXT)


def test_a_frozen_session_reads_without_writing(model):
    session = new_session(model)
    session.read(TEXT)
    session.freeze()
    session.read("Nothing of this is kept.")
    written = [block.memory.tokens_seen for block in session.cache.blocks if block.memory is not None]
    assert set(written) == {(len(TEXT),)}
    session.thaw()
    session.read("This is.")
    assert session.cache.blocks[0].memory.tokens_seen == (len(TEXT) + 8,)


@pytest.mark.parametrize("name", SYSTEMS)
def test_many_sessions_at_once_are_each_what_they_would_be_alone(name):
    model = make_model(name).double()
    texts = [TEXT[:37], "", "Short.", "A"]
    alone, together = ([new_session(model, piece_tokens=20) for _ in texts] for _ in range(2))
    for round_ in range(2):
        for session, text in zip(alone, texts, strict=True):
            session.read(text)
        read_together(together, texts)
        texts = texts[1:] + texts[:1]
        prompts = [QUESTION[: 3 + 5 * i + round_] for i in range(len(texts))]
        few = Sampling(max_tokens=4)
        one_by_one = [s.ask(prompt, few) for s, prompt in zip(alone, prompts, strict=True)]
        assert ask_together(together, prompts, few) == one_by_one
    ids = torch.randint(256, (1, 6))
    for a, b in zip(alone, together, strict=True):
        assert a.readings == b.readings
        torch.testing.assert_close(model(ids, b.cache).logits, model(ids, a.cache).logits)


@pytest.mark.parametrize("name", SYSTEMS)
def test_joined_caches_come_apart_again(name):
    model = make_model(name).double()
    caches = []
    for length in (0, 4, 23):
        _, cache = read_tokens(model, fresh_cache(model), [torch.randint(256, (length,))], piece=100)
        caches.append(cache)
    joined, ids = join_caches(caches), torch.randint(256, (1, 6))
    assert joined.tokens_seen.tolist() == [0, 4, 23]
    with torch.no_grad():
        for b, cache in enumerate(caches):
            own = joined.select(torch.tensor([b]))
            torch.testing.assert_close(model(ids, own).logits, model(ids, cache).logits)


def test_a_saved_session_goes_on_as_it_would_have(model, tmp_path):
    session = new_session(model)
    session.read(TEXT, name="mill")
    session.save(tmp_path / "x.fwpkm")
    loaded = MemorySession.load(tmp_path / "x.fwpkm", model, ByteTokenizer())
    assert loaded.readings == session.readings
    assert loaded.ask(QUESTION, SHORT) == session.ask(QUESTION, SHORT)
    for s in (loaded, session):
        s.read("More of it.")
    assert loaded.ask(QUESTION, SHORT) == session.ask(QUESTION, SHORT)
    with pytest.raises(ValueError, match="made by another model"):
        MemorySession.load(tmp_path / "x.fwpkm", make_model(seed=1), ByteTokenizer())


class OtherTokenizer(ByteTokenizer):
    fingerprint = "another"


def test_another_tokenizer_is_refused(model, tmp_path):
    session = new_session(model)
    session.read(TEXT)
    session.save(tmp_path / "x.fwpkm")
    with pytest.raises(ValueError, match="another tokenizer"):
        MemorySession.load(tmp_path / "x.fwpkm", model, OtherTokenizer())
    with pytest.raises(ValueError, match="259 tokens and vocab_size=40"):
        MemorySession(Decoder(make_system("full")), ByteTokenizer())


def test_sessions_of_different_models_are_no_batch(model):
    with pytest.raises(ValueError, match="of 2 models"):
        read_together([new_session(model), new_session(make_model())], ["a", "b"])
    with pytest.raises(ValueError, match="got 1 for 2 sessions"):
        ask_together([new_session(model)] * 2, ["a"])
    with pytest.raises(ValueError, match="times must be at least 1"):
        new_session(model).read(TEXT, times=0)


def test_drawn_answers_follow_their_seed(model):
    session = new_session(model)
    session.read(TEXT)
    warm = [Sampling(max_tokens=12, temperature=1.0, seed=seed) for seed in (0, 0, 1)]
    a, b, c = (session.ask(QUESTION, sampling) for sampling in warm)
    assert a == b != c
    near_zero = Sampling(max_tokens=9, temperature=1.0, top_p=1e-9)
    assert session.ask(QUESTION, near_zero) == session.ask(QUESTION, SHORT)


@pytest.mark.parametrize(
    "change", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"stop": ("",)}]
)
def test_sampling_refuses_nonsense(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        build_unchecked(Sampling, **change)


def feed(tokens, stop=()):
    answer = AnswerText(ByteTokenizer(), stop)
    bits = []
    for token in tokens:
        bits.append(answer.add(token))
        if answer.ended:
            break
    return [*bits, answer.finish()], answer


def test_answers_show_whole_characters_only():
    bits, answer = feed("né漢".encode())
    assert bits == ["n", "", "é", "", "", "漢", ""]
    assert answer.text == "né漢"
    bits, _ = feed(b"n" + "é".encode()[:1])
    assert bits == ["n", "", "\N{REPLACEMENT CHARACTER}"]


def test_answers_end_before_a_stop_text_and_never_show_a_part_of_it():
    bits, answer = feed(b"12. Q: why", stop=("\n", ". Q:"))
    assert "".join(bits) == answer.text == "12"
    assert answer.ended
    bits, answer = feed(b"1.2. 3", stop=(". Q:",))
    assert "".join(bits) == answer.text == "1.2. 3"
    bits, answer = feed([49, ByteTokenizer.eos_id, 50])
    assert "".join(bits) == answer.text == "1"


@pytest.fixture
def folder(model, tmp_path):
    save_model(tmp_path / "model", model)
    ByteTokenizer().save(tmp_path / "model")
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path


def test_read_and_ask_on_the_command_line(folder, model, capsys, monkeypatch):
    book, out = str(folder / "book.txt"), str(folder / "book.fwpkm")
    assert main(["read", str(folder / "model"), book, "--out", out, "--times", "2"]) == 0
    assert f"{2 * len(TEXT)} tokens" in capsys.readouterr().out
    session = new_session(model)
    session.read(TEXT, times=2)
    expected = session.ask(QUESTION, SHORT)
    assert main(["ask", "--memory", out, QUESTION, "--max-tokens", "9"]) == 0
    assert capsys.readouterr().out == expected + "\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n{QUESTION}\n"))
    assert main(["ask", "--memory", out, "--checkpoint", str(folder / "model"), "--max-tokens", "9"]) == 0
    assert capsys.readouterr().out == f"{expected}\n" * 2
    more = ["--memory", out, "--rows", "int8", "--piece", "11"]
    assert main(["read", str(folder / "model"), book, "--out", out, *more]) == 0
    assert f"{3 * len(TEXT)} tokens" in capsys.readouterr().out
    assert main(["memory", "info", out]) == 0
    assert "book.txt" in capsys.readouterr().out


def test_a_memory_knows_its_model_and_says_where_it_was(folder, capsys):
    book, out, model = (str(folder / name) for name in ("book.txt", "book.fwpkm", "model"))
    assert main(["read", model, book, "--out", out]) == 0
    assert main(["ask", "--memory", out, ""]) == 2
    assert "the prompt must have a token" in capsys.readouterr().err
    (folder / "model").rename(folder / "moved")
    assert main(["ask", "--memory", out, QUESTION]) == 2
    assert f"was {model}, which is not there; give --checkpoint" in capsys.readouterr().err
    assert main(["ask", "--memory", out, QUESTION, "--checkpoint", str(folder / "moved")]) == 0
    capsys.readouterr()
    assert main(["ask", "--memory", out, QUESTION, "--checkpoint", "small"]) == 2
    assert "in the file and" in capsys.readouterr().err


def test_a_memory_of_a_model_that_ships_is_good_wherever_fwpkm_is(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    fact = " The secret number for ID-7f3a is 481516."
    (folder / "fact.txt").write_text(fact + " And so on, and so forth, for a while yet." * 3)
    assert main(["read", "small", "fact.txt", "--out", "fact.fwpkm"]) == 0
    assert main(["memory", "info", "fact.fwpkm"]) == 0
    told = capsys.readouterr().out
    assert "checkpoint: small" in told
    assert "memory of a model" in told
    assert f"read fact.txt: tokens 0 to {len(fact) + 3 * 42}" in told
    monkeypatch.setattr("sys.stdin", io.StringIO(" The secret number for ID-7f3a is\n\n"))
    assert main(["ask", "--memory", "fact.fwpkm", "--max-tokens", "7"]) == 0
    assert capsys.readouterr().out == " 481516\n"


def test_the_command_line_says_what_is_wrong(folder, capsys):
    book, out = str(folder / "book.txt"), str(folder / "book.fwpkm")
    (folder / "latin.txt").write_bytes("né".encode("latin-1"))
    (folder / "blank.txt").write_text(" \n")
    (folder / "zero.txt").write_text("a\0b")
    for arguments, message in (
        (["read", str(folder / "none"), book, "--out", out], "give a folder"),
        (["read", str(folder / "model"), str(folder / "latin.txt"), "--out", out], "must be a text in UTF-8"),
        (["read", str(folder / "model"), book, "--out", out, "--times", "0"], "times must be at least 1"),
        (["ask", "--memory", out, "x"], "no such file"),
        (["read", str(folder / "model"), str(folder / "none.txt"), "--out", out], "there is no such file"),
        (["read", str(folder / "model"), str(folder / "blank.txt"), "--out", out], "must hold some text"),
        (["read", str(folder / "model"), str(folder / "zero.txt"), "--out", out], "zero byte at character 1"),
        (["read", str(folder / "model"), book, "--out", str(folder)], "--out: must be a file"),
        (["read", str(folder / "model"), book, "--out", str(folder / "no/m.fwpkm")], "folder must exist"),
        (["read", book, book, "--out", out], "must be the folder of a trained model, got a file"),
        (["ask", "--memory", book, "x"], "not a memory file"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    (folder / "model" / "fwpkm_tokenizer.json").unlink()
    assert main(["read", str(folder / "model"), book, "--out", out]) == 2
    assert "holds no tokenizer" in capsys.readouterr().err
