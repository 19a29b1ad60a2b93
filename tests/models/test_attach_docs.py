"""What docs/retrofit.md and the example say runs, and says the truth."""

import re
import runpy
from pathlib import Path

import pytest

pytest.importorskip("transformers", minversion="5.24")
from fwpkm.models.attach import FAMILIES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/retrofit.md").read_text()


def test_the_examples_of_the_page_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) >= 5
    names: dict = {}
    for number, example in enumerate(examples):
        exec(compile(example, f"retrofit.md, example {number}", "exec"), names)


def test_the_script_runs_and_its_adapter_says_the_same_when_loaded_again(tmp_path):
    alone, remembering, again = runpy.run_path(str(ROOT / "examples/attach.py"))["run"](tmp_path, steps=3)
    assert remembering == again
    assert 0 <= alone <= 1


def test_the_page_names_every_family():
    assert [name for name in FAMILIES if not re.search(rf"\b{name}\b", PAGE)] == []
