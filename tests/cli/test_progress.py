import sys
from types import SimpleNamespace

import pytest

from fwpkm.cli import progress
from fwpkm.cli.progress import ProgressLine

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def count(line: ProgressLine, clock: SimpleNamespace, seconds: float, *dones: int, total: int = 100) -> None:
    for done in dones:
        clock.now += seconds
        line(done, total)


def test_a_log_gets_a_line_a_minute_and_none_at_the_end(clock: SimpleNamespace, capsys: Capture) -> None:
    count(ProgressLine("samples"), clock, 25, 1, 2, 3, 4, 5, 6, 100)
    assert capsys.readouterr().err == "3/100 samples, 2425 s left\n6/100 samples, 2350 s left\n"


def test_a_terminal_keeps_one_line_up_to_date_and_ends_it(
    clock: SimpleNamespace, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    count(ProgressLine("tokens", what="emma.txt"), clock, 2, 1000, 3000, 5000, total=5000)
    first, *lines = capsys.readouterr().err.split("\r")
    assert not first
    assert lines == [
        "emma.txt: 1,000/5,000 tokens\x1b[K",
        "emma.txt: 3,000/5,000 tokens, 1,000/s, 2 s left\x1b[K",
        "emma.txt: 5,000/5,000 tokens, 1,000/s\x1b[K\n",
    ]


def test_what_an_earlier_process_did_does_not_count_as_fast(clock: SimpleNamespace, capsys: Capture) -> None:
    count(ProgressLine("units"), clock, 61, 90, 91)
    assert capsys.readouterr().err == "90/100 units\n91/100 units, 549 s left\n"


def test_the_next_length_is_timed_by_itself(clock: SimpleNamespace, capsys: Capture) -> None:
    line = ProgressLine("samples")
    count(line, clock, 1, 99, 100)
    count(line, clock, 60, 1, 2)
    assert capsys.readouterr().err == "1/100 samples, 5940 s left\n2/100 samples, 5880 s left\n"
