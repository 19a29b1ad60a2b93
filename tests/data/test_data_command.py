"""fwpkm data, as a user types it."""

import json
from pathlib import Path

import pytest

from fwpkm.cli.main import main
from fwpkm.data.get.clients import NotAvailableError


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i in range(30):
        (tmp_path / "in" / f"{i:02d}.txt").write_text(f"This is text number {i}. " * 5)
    return tmp_path / "in"


def test_build_info_and_verify_say_what_there_is(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fwpkm.cli.progress.SECONDS_BETWEEN_LINES", 0)
    out = str(tmp_path / "out")
    assert main(["data", "build", str(text), "--out", out, "--held-out", "0.3", "--licence", "CC0-1.0"]) == 0
    built = capsys.readouterr()
    assert "tokens of 'bytes' (259 ids" in built.out
    assert "licence: CC0-1.0" in built.out
    assert "0/1 units, 0 tokens, 0 documents\n" in built.err
    assert main(["data", "info", out]) == 0
    assert capsys.readouterr().out == built.out
    assert main(["data", "verify", out]) == 0
    assert "sound" in capsys.readouterr().out


def test_a_trained_tokenizer_builds_a_corpus(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bpe, out = str(tmp_path / "bpe"), str(tmp_path / "out")
    assert main(["data", "tokenizer", str(text), "--out", bpe, "--vocab-size", "270"]) == 0
    assert main(["data", "build", str(text), "--out", out, "--tokenizer", bpe]) == 0
    assert "(270 ids" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/manifest.json").read_text())["tokenizer"]["vocab_size"] == 270
    assert main(["data", "tokenizer", str(text), "--out", bpe]) == 2


def test_what_is_wrong_is_said_with_a_non_zero_exit(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (text / "07.txt").write_bytes(b"\0")
    assert main(["data", "build", str(text), "--out", str(tmp_path / "out")]) == 2
    assert "07.txt: this must be text, got a NUL at byte 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["data", "info", str(tmp_path / "out")]) == 2
    assert "unfinished, run the same build again" in capsys.readouterr().err
    assert main(["data", "build", str(text), "--out", str(tmp_path / "x"), "--tokenizer", "byte"]) == 2
    assert "did you mean 'bytes'" in capsys.readouterr().err


def test_books_that_cannot_be_had_are_said_with_a_non_zero_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def missing(*given: object) -> None:
        raise NotAvailableError("the program 'npm' is not installed here")

    monkeypatch.setattr("fwpkm.data.get.fetch.bring", missing)
    assert main(["data", "get", "books", "--out", str(tmp_path / "b"), "--only", "melville"]) != 0
    assert "melville: the program 'npm' is not installed here" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
