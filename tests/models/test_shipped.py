"""The model that comes with the package: it is found by name, and answers from what it has read."""

from pathlib import Path

import pytest
import torch

from fwpkm.cli.main import main
from fwpkm.data.books import novel_documents
from fwpkm.data.haystack import ProseHaystack
from fwpkm.data.needles import NeedleMaker
from fwpkm.data.tokenizer import load_tokenizer
from fwpkm.eval.needles import NeedleSettings, measure_needles
from fwpkm.eval.reader import ModelReader
from fwpkm.models.files import load_model
from fwpkm.models.shipped import checkpoint_names, find_checkpoint


def test_models_are_found_by_name_and_by_folder(tmp_path: Path) -> None:
    assert "small" in checkpoint_names()
    assert find_checkpoint("small").name == "small"
    assert find_checkpoint(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match="did you mean 'small'"):
        find_checkpoint("smal")


def test_reading_and_asking_work_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer("bytes")
    _, ending = novel_documents(tokenizer)
    sample = NeedleMaker("paper", tokenizer, ProseHaystack(ending)).sample(length=6000, depth=0.3, seed=1)
    (tmp_path / "book.txt").write_bytes(tokenizer.decode(sample.context).encode())
    memory = str(tmp_path / "book.fwpkm")
    assert main(["read", "small", str(tmp_path / "book.txt"), "--out", memory]) == 0
    capsys.readouterr()
    question = sample.questions[0]
    asked = tokenizer.decode(question.prompt)
    assert main(["ask", asked, "--memory", memory, "--max-tokens", "7"]) == 0
    assert capsys.readouterr().out.strip() == question.values[0]


def test_what_it_knows_is_in_its_memory() -> None:
    folder = find_checkpoint("small")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    _, ending = novel_documents(tokenizer)
    torch.manual_seed(0)
    settings = NeedleSettings(
        lengths=(2048,), depths=(0.2, 0.5), reads=(1,), samples=4, ablations=("memory_off", "wrong_document")
    )
    maker = NeedleMaker("paper", tokenizer, ProseHaystack(ending))
    right = dict.fromkeys(("normal", "memory_off", "wrong_document"), 0)
    for cell in measure_needles(ModelReader(model), maker, settings):
        right[cell.variant] += cell.right
    assert right["normal"] >= 6
    assert right["memory_off"] == right["wrong_document"] == 0
