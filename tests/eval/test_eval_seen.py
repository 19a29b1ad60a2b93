"""Texts that a model was trained on are not taken for held out without a word."""

import json
import shutil
from pathlib import Path

import pytest
from eval_readers import make_tiny

from fwpkm.cli.main import main
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.files import load_result
from fwpkm.models.files import save_model
from fwpkm.models.shipped import find_checkpoint
from fwpkm.report.page import origin_table

OPTIONS = {"slots": ["--length", "60", "--max-runs", "1"], "continual": ["--length", "40", "--samples", "1"]}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Save a tiny model that says of itself what the shipped one does."""
    save_model(folder := tmp_path / "model", make_tiny())
    ByteTokenizer().save(folder)
    shutil.copy(find_checkpoint("small") / "seen.json", folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "texts", "seen"),
    [
        ("slots", [], ("novel",)),
        ("slots", ["--text", "python"], ()),
        ("continual", ["--text", "python", "--other", "novel"], ("novel",)),
        ("continual", ["--other", "novel"], ("novel",)),
        ("continual", [], ("novel",)),
    ],
)
def test_the_shipped_model_is_said_to_know_the_novel(
    kind: str, texts: list[str], seen: tuple[str, ...], checkpoint: Path, capsys: Capture
) -> None:
    out = checkpoint.parent / "result.json"
    assert main(["eval", kind, str(checkpoint), *texts, *OPTIONS[kind], "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert said.count("was trained on all of 'novel'") == len(seen)
    result = load_result(out)
    assert result.origin.seen_in_training == seen
    assert ("seen in training", ", ".join(seen)) in origin_table(result).rows


def test_a_model_that_says_nothing_is_not_warned_of(checkpoint: Path, capsys: Capture) -> None:
    (checkpoint / "seen.json").unlink()
    out = checkpoint.parent / "result.json"
    assert main(["eval", "slots", str(checkpoint), *OPTIONS["slots"], "--out", str(out)]) == 0
    assert "warning" not in capsys.readouterr().err
    assert load_result(out).origin.seen_in_training == ()


@pytest.mark.parametrize("content", ["novel", {"novel": True}, [1]])
def test_what_is_no_list_of_texts_is_refused(content: object, checkpoint: Path, capsys: Capture) -> None:
    (checkpoint / "seen.json").write_text(json.dumps(content))
    assert main(["eval", "slots", str(checkpoint), *OPTIONS["slots"]]) == 2
    assert "seen.json: must be a list of names of texts" in capsys.readouterr().err
