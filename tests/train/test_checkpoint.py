"""Checkpoints are whole or not taken, whatever happened to them."""

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from conftest import MakeRun
from fwpkm.files import hash_file
from fwpkm.train.config import CheckpointConfig
from fwpkm.train.durable import UnreadableError, begin_folder, check_folder, finish_folder, remove_unfinished
from fwpkm.train.stop import StopRequest


@pytest.fixture
def finished(make_run: MakeRun, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of a finished run, which is trained once and copied."""
    kept = tmp_path_factory.getbasetemp() / "finished"
    run = make_run(carry="document")
    if not kept.exists():
        run.run(StopRequest())
        shutil.copytree(run.checkpoints.folder, kept)
    shutil.copytree(kept, run.checkpoints.folder, dirs_exist_ok=True)
    return run.checkpoints.paths()


FILES = [
    "model.safetensors",
    "optimizer.safetensors",
    "trainer.json",
    "random-0.safetensors",
    "manifest.json",
]


@pytest.mark.parametrize("damage", ["cut", "flip", "missing"])
@pytest.mark.parametrize("name", [*FILES, "carried-0-0of1.memory"])
def test_a_damaged_checkpoint_is_passed_over(
    make_run: MakeRun, finished: list[Path], name: str, damage: str
) -> None:
    file = finished[-1] / name
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:-7])
    elif damage == "flip":
        content[len(content) // 2] ^= 0x10
        file.write_bytes(content)
    else:
        file.unlink()
    run = make_run(carry="document")
    assert run.checkpoints.newest_whole() == finished[-2]
    assert run.resume().step == 2


def test_without_a_whole_one_there_is_none(make_run: MakeRun, finished: list[Path]) -> None:
    for path in finished:
        (path / "model.safetensors").unlink()
    assert make_run().checkpoints.newest_whole() is None
    with pytest.raises(
        ValueError, match=r"checkpoints: none of its 2 checkpoints is whole; remove that folder"
    ):
        make_run(carry="document").resume()


def test_a_damaged_checkpoint_displaces_no_whole_one(make_run: MakeRun, finished: list[Path]) -> None:
    (finished[-1] / "model.safetensors").write_bytes(b"cut")
    run = make_run(carry="document", steps=3, checkpoints=CheckpointConfig(every_steps=1, keep=2))
    run.resume()
    run.run(StopRequest())
    assert [p.name for p in run.checkpoints.paths()] == ["step-00000002", "step-00000003", "step-00000004"]
    assert make_run(carry="document").resume().step == 3


def test_a_damaged_checkpoint_is_written_again(make_run: MakeRun, finished: list[Path]) -> None:
    (finished[-1] / "model.safetensors").write_bytes(b"cut")
    run = make_run(carry="document")
    run.resume()
    run.run(StopRequest())
    check_folder(finished[-1])
    assert make_run(carry="document").resume().step == 4


def test_only_the_newest_stay(make_run: MakeRun) -> None:
    run = make_run(steps=4, checkpoints=CheckpointConfig(every_steps=1, keep=2))
    run.run(StopRequest())
    assert [p.name for p in run.checkpoints.paths()] == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("call", range(0, 16, 3))
def test_a_full_disk_leaves_the_older_checkpoints(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    run = make_run()
    run.save()
    calls, fsync = 0, os.fsync

    def fail(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    run._step(next(run.source))
    with pytest.raises(OSError, match="No space left"):
        run.save()
    monkeypatch.undo()
    for path in run.checkpoints.paths():
        check_folder(path)
    assert make_run().resume().step in (0, 1)


@pytest.mark.parametrize("most_bytes", [100, 3000, 20_000])
def test_files_that_may_not_grow_end_in_the_same_error(
    make_run: MakeRun, tmp_path: Path, most_bytes: int
) -> None:
    run = make_run()
    run.save()
    run._step(next(run.source))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written: .*ile too large.* go on with --resume"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in run.checkpoints.folder.iterdir()] == ["step-00000000"]
    assert make_run().resume().step == 0


def test_saving_changes_nothing_that_is_there(make_run: MakeRun, finished: list[Path]) -> None:
    before = hash_file(finished[-1] / "model.safetensors")
    run = make_run(carry="document")
    run.resume()
    run.save()
    assert hash_file(finished[-1] / "model.safetensors") == before


def test_another_model_is_told_all_that_differs(make_run: MakeRun, finished: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"memory\.q_proj\.weight is unknown; "):
        make_run("full").resume()


def test_a_folder_appears_in_one_instant(tmp_path: Path) -> None:
    aside = begin_folder(tmp_path / "thing")
    (aside / "a.txt").write_text("a")
    assert not (tmp_path / "thing").exists()
    finish_folder(aside, tmp_path / "thing")
    check_folder(tmp_path / "thing")
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    begin_folder(tmp_path / "thing")
    (tmp_path / "x.json.unfinished").write_text("{")
    (tmp_path / "kept").mkdir()
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_a_folder_without_a_manifest_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"manifest\.json"):
        check_folder(tmp_path)


def test_sparse_and_dense_optimizers_come_back(make_run: MakeRun, finished: list[Path]) -> None:
    run = make_run(carry="document")
    run.resume()
    states = {name: x for name, _, _, x in run.optimizer.tensors()}
    assert {name.rsplit("/", 1)[1] for name in states} == {"step", "exp_avg", "exp_avg_sq"}
    assert all(bool(torch.isfinite(x).all()) for x in states.values())
