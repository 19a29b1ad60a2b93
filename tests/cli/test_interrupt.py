"""Ctrl-C in any command: one line and exit code 130."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fwpkm.cli.main import main
from fwpkm.data.shards.build import UnitWriter
from fwpkm.data.shards.unit import UnitResult

COMMANDS = {
    "ask": ["ask", "Who?", "--memory", "m"],
    "bench": ["bench", "layer"],
    "data": ["data", "info", "c"],
    "demo": ["demo"],
    "eval": ["eval", "slots", "m"],
    "info": ["info", "small/swa"],
    "inspect": ["inspect", "m", "d", "--out", "p"],
    "read": ["read", "m", "d", "--out", "o"],
    "train": ["train", "small/swa"],
}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """Let Ctrl-C interrupt: a shell starts what goes on in the background with that signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c(*_: object) -> int:
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("unreachable: the signal interrupts")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_interrupted_says_so_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(f"fwpkm.cli.{command}.run", press_ctrl_c)
    assert main(COMMANDS[command]) == 130
    assert capsys.readouterr().err == f"fwpkm {command}: stopped\n"


def test_the_line_stands_below_what_a_terminal_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("fwpkm.cli.eval.run", press_ctrl_c)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    main(COMMANDS["eval"])
    assert capsys.readouterr().err == "\nfwpkm eval: stopped\n"


def test_an_interrupted_build_says_that_the_same_command_goes_on_and_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write, written = UnitWriter.write, []

    def write_one(self: UnitWriter, number: int, unit: tuple) -> UnitResult:
        if written:
            press_ctrl_c()
        written.append(number)
        return write(self, number, unit)

    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"It rained on {name}.")
    texts, out = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], tmp_path / "corpus"
    monkeypatch.setattr("fwpkm.data.shards.pieces._MIN_BYTES", 1)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(UnitWriter, "write", write_one)
        assert main(["data", "build", *texts, "--out", str(out)]) == 130
    assert capsys.readouterr().err == "fwpkm data: stopped; the same command goes on where it was\n"
    assert not out.exists()
    monkeypatch.setattr("fwpkm.cli.progress.SECONDS_BETWEEN_LINES", 0)
    assert main(["data", "build", *texts, "--out", str(out)]) == 0
    assert "1/2 units" in capsys.readouterr().err
