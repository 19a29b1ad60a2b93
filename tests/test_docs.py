"""What the documents say is held against the code."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_name_in_the_paper_map_exists() -> None:
    text = (ROOT / "docs/paper_map.md").read_text()
    names = set(re.findall(r"`(fwpkm\.[\w.]+)`", text))
    assert len(names) > 10
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_test_path_in_the_paper_map_exists() -> None:
    paths = set(re.findall(r"`(tests/[\w./]+)`", (ROOT / "docs/paper_map.md").read_text()))
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_deviation_that_the_code_names_is_in_the_list() -> None:
    listed = set(re.findall(r"^\| (D\d+) \|", (ROOT / "docs/deviations.md").read_text(), re.MULTILINE))
    for path in (ROOT / "src").rglob("*.py"):
        for name in re.findall(r"\b(D[1-9]\d?)\b(?=[).;,]| for )", path.read_text()):
            assert name in listed, f"{path.name} names {name}"


def test_the_readme_example_runs() -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_between_documents_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
        assert (ROOT / name).parent.joinpath(target).exists(), target
