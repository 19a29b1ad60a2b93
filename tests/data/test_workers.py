"""Builds by several processes: none outlives the command, and two never work in the same place."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fwpkm.cli.main import main
from fwpkm.data.shards import build_corpus, workers
from fwpkm.data.tokenizer import ByteTokenizer

BUILD = """
import os, signal, sys
from pathlib import Path

from fwpkm.data.shards import build, build_corpus
from fwpkm.data.tokenizer import ByteTokenizer

def hang(number, unit):
    os.write(1, b"%d\\n" % number)  # at once, or another worker's may come between
    signal.pause()

if __name__ in ("__main__", "__mp_main__"):
    build._write_unit = hang  # in the workers, too: they import this file first
if __name__ == "__main__":
    build_corpus([sys.argv[1]], Path(sys.argv[2]), ByteTokenizer(), workers=2)
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i in range(2):
        (tmp_path / "in" / f"{i}.txt").write_text("word " * 220_000)  # a unit each
    return tmp_path / "in"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(
    how: signal.Signals, texts: Path, tmp_path: Path
) -> None:
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    command = [sys.executable, str(script), str(texts), str(tmp_path / "out")]
    # They hold its output open: it ends when the last of them has.
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as building:
        assert building.stdout is not None
        try:
            begun = {building.stdout.readline() for _ in range(2)}
            assert begun == {b"0\n", b"1\n"}
            os.kill(building.pid, how)
            building.communicate(timeout=60)
        finally:
            os.killpg(building.pid, signal.SIGKILL) if building.returncode is None else None
    assert building.returncode == -how
    assert not (tmp_path / "out").exists()
    build_corpus([str(texts)], tmp_path / "out", ByteTokenizer())
    assert not (tmp_path / "out/lock").exists()


def test_a_second_build_of_the_same_corpus_is_refused(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    building = tmp_path / "out.building"
    building.mkdir()
    command = ["data", "build", str(texts), "--out", str(tmp_path / "out")]
    with workers.locked(building):
        assert main(command) == 1
        assert f"{building}: another build is at work here" in capsys.readouterr().err
        assert [p.name for p in building.iterdir()] == ["lock"]
    assert main(command) == 0
