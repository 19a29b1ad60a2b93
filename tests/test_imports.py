"""Imports point one way, and the core needs little more than torch."""

import ast
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
LAYERS = (
    ("state", "nested", "toml", "devices", "files", "lock"),
    ("ops",),
    ("memory", "machine"),
    ("layers",),
    ("models",),
    ("recipe",),
    ("data",),
    ("train", "sessions"),
    ("eval", "inspect"),
    ("study",),
    ("report",),
    ("bench", "testing"),
    ("cli",),
)
"""Each may import what stands before it, and itself."""
CORE = ("ops", "memory", "layers")
CORE_NEEDS = {"torch", "numpy", "safetensors", "jaxtyping", "fwpkm", *sys.stdlib_module_names}
ONLY_IN = {
    "numba": (
        "ops/jit.py",
        "ops/fork.py",
        "ops/loop_address.py",
        "ops/pointers.py",
        "ops/lanes.py",
        "ops/addressing/product.py",
    ),
    "llvmlite": (
        "ops/fork.py",
        "ops/loop_address.py",
        "ops/pointers.py",
        "ops/lanes.py",
        "ops/addressing/product.py",
    ),
    "triton": ("triton.py",),
    "fla": ("ops/delta_rule/fla.py",),
    "transformers": ("models/hf/", "models/attach", "data/tokenizer/", "testing/"),
}


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """List the modules that a file imports, and whether it does so at its top level."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found.append((node.module or "", id(node) in top))
    return found


FILES = sorted(SRC.rglob("*.py"))
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def layer_of(path: Path) -> str:
    return path.relative_to(SRC / "fwpkm").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_a_file_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    own = layer_of(path)
    if own == "__init__":
        return
    assert own in RANK, f"put {own} in its place in LAYERS"
    for name, _ in imports_of(path):
        parts = name.split(".")
        if parts[0] == "fwpkm" and len(parts) > 1:
            other = parts[1]
            assert other == own or RANK[other] < RANK[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_the_core_needs_torch_and_little_more(path: Path) -> None:
    for name, top_level in imports_of(path):
        root = name.split(".")[0]
        where = str(path.relative_to(SRC / "fwpkm"))
        if root in ONLY_IN:
            assert any(part in where for part in ONLY_IN[root]), f"{where} imports {root}"
        elif layer_of(path) in CORE and top_level:
            assert root in CORE_NEEDS, f"{where} imports {root}"
