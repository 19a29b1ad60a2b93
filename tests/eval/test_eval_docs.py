"""What docs/evaluation.md says runs."""

import argparse
import re
from pathlib import Path

import pytest

from fwpkm.cli.eval import add_arguments
from fwpkm.eval.needles import ABLATIONS

PAGE = (Path(__file__).parents[2] / "docs/evaluation.md").read_text()


def test_the_pages_example_runs(capsys: pytest.CaptureFixture) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    exec(compile(example[1], "docs/evaluation.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        f"{variant} 400 0.5 {reads}" for variant in ("normal", "wrong_document") for reads in (1, 2)
    ]


def test_the_pages_commands_parse() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    commands = re.findall(r"^fwpkm eval ([^#\n]+)", PAGE, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        assert parser.parse_args(command.split()).what in command


def test_every_ablation_is_explained() -> None:
    for name in ABLATIONS:
        assert f"`{name}`:" in PAGE
