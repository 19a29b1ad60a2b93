"""What docs/huggingface.md and the example say runs, and says the truth."""

import re
import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", minversion="5.24")
ROOT = Path(__file__).parents[2]


def test_the_examples_of_the_page_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/huggingface.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 4
    names: dict = {}
    for number, example in enumerate(examples):
        exec(compile(example, f"huggingface.md, example {number}", "exec"), names)


def test_the_script_counts_on(tmp_path):
    pytest.importorskip("accelerate")
    script = runpy.run_path(str(ROOT / "examples/huggingface.py"))
    script["train"](tmp_path)
    one, two = script["go_on"](tmp_path)
    assert one == two == torch.arange(15, 23).tolist()
