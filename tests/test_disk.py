"""A disk that is full, or files that may not grow: which one and why is said, and nothing half done stays."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from fwpkm.cli.main import main
from fwpkm.files import write_array, write_json, write_tensors, write_text, writing
from fwpkm.memory.files import MemoryFile, read_file, write_file
from fwpkm.train.rundir import RunFolder

WHY = "File too large"


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("It was a truth universally acknowledged. " * 3000)
    return path


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_build_says_which_file_and_why_and_goes_on_later(
    workers: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "other.txt").write_text("word " * 300_000)
    inputs = [str(text), str(tmp_path / "other.txt")]
    command = ["data", "build", *inputs, "--out", str(tmp_path / "out"), "--workers", workers]
    with files_up_to(50_000):
        assert main(command) == 2
    said = capsys.readouterr().err
    assert f"{WHY}; {tmp_path / 'out'} was not made" in said
    assert ".tokens.npy'" in said
    assert "None" not in said
    assert not list(tmp_path.rglob("*.unfinished"))
    assert main(command) == 0


def test_a_trained_tokenizer_is_whole_or_not_there(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["data", "tokenizer", str(text), "--out", str(tmp_path / "bpe"), "--vocab-size", "270"]
    with files_up_to(4000):
        assert main(command) == 2
    said = capsys.readouterr().err
    assert WHY in said
    assert "tokenizer.json'" in said
    assert [p.name for p in tmp_path.iterdir()] == ["book.txt"]
    assert main(command) == 0


def test_a_memory_file_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.fwpkm"
    header = {"tree": {}, "fingerprint": {}, "rows": "exact"}
    write_file(path, MemoryFile(header=header, tensors={"x": torch.ones(3)}))
    with files_up_to(2000), pytest.raises(OSError, match=f"{WHY}: '{path}'"):
        write_file(path, MemoryFile(header=header, tensors={"x": torch.zeros(3000)}))
    assert [p.name for p in tmp_path.iterdir()] == ["a.fwpkm"]
    assert read_file(path).tensors["x"].tolist() == [1, 1, 1]


def test_what_safetensors_cannot_explain_still_names_the_file() -> None:
    with pytest.raises(OSError, match=r"^a\.safetensors: this could not be written \(it broke\)"):  # noqa: SIM117
        with writing("a.safetensors"):
            raise SafetensorError("it broke")


WRITES = {
    "array": lambda path: write_array(path, np.zeros(100_000)),
    "JSON": lambda path: write_json(path, "x" * 100_000),
    "tensors": lambda path: write_tensors(path, {"x": torch.zeros(100_000)}),
    "text": lambda path: write_text(path, "x" * 100_000),
}


@pytest.mark.parametrize("kind", WRITES)
def test_every_writer_of_files_names_them_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    with files_up_to(2000), pytest.raises(OSError, match=f"{WHY}: '{tmp_path / 'a'}'") as caught:
        WRITES[kind](tmp_path / "a")
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_metrics_that_find_no_room_name_their_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with files_up_to(2000), pytest.raises(OSError, match=f"{WHY}: '{folder.metrics}'"):
        folder.append_metrics("train", 1, {"text": "x" * 5000})


def test_an_array_is_written_as_numpy_writes_it(tmp_path: Path) -> None:
    array = np.arange(5, dtype=np.uint16)
    write_array(tmp_path / "ours.npy", array)
    np.save(tmp_path / "numpys.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpys.npy").read_bytes()


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_tensors_are_for_whom_files_of_this_process_usually_are(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        for _ in range(2):  # the second time over the first file
            write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(3)})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
