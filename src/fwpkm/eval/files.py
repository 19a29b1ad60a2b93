"""Results as JSON files: whole or not there, and read back to what they were."""

from pathlib import Path
from typing import Any

from fwpkm.eval.continual import ContinualResult
from fwpkm.eval.gates import GateResult
from fwpkm.eval.needles import NeedleResult
from fwpkm.eval.perplexity import PerplexityResult
from fwpkm.eval.slots import SlotResult
from fwpkm.files import read_json, write_json
from fwpkm.nested import from_mapping, to_mapping, unknown_name

Result = NeedleResult | PerplexityResult | GateResult | SlotResult | ContinualResult
KINDS: dict[str, type[Any]] = {
    "needles": NeedleResult,
    "perplexity": PerplexityResult,
    "gates": GateResult,
    "slots": SlotResult,
    "continual": ContinualResult,
}
FORMAT = "fwpkm evaluation"
VERSION = 1
"""Of the files; raised when a field changes its meaning or goes."""


def kind_of(result: Result) -> str:
    """Return a result's name in files and commands."""
    return next(kind for kind, cls in KINDS.items() if isinstance(result, cls))


def save_result(path: str | Path, result: Result) -> None:
    """Write a result; its folder is made if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"format": FORMAT, "version": VERSION, "kind": kind_of(result)}
    write_json(path, {**head, "result": to_mapping(result)})


def load_result(path: str | Path) -> Result:
    """Read what `save_result` wrote.

    Raises:
        ValueError: If there is no such file, or it is no result, or one of another version, or damaged.
    """
    content = read_json(Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: must be a result of fwpkm eval, with format={FORMAT!r}")
    if content.get("version") != VERSION:
        raise ValueError(f"{path}: must be of version {VERSION}, got version={content.get('version')!r}")
    if content.get("kind") not in KINDS:
        raise ValueError(f"{path}: {unknown_name('kind', content.get('kind'), KINDS)}")
    try:
        return from_mapping(KINDS[content["kind"]], content.get("result", {}))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
