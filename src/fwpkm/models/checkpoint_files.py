"""Checkpoints of others as files: read without running their code, written whole or not at all."""

import json
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_PICKLES = (".bin", ".pt", ".pth")


def read_checkpoint(source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config.json and all weights of a folder, or of a weights file with config.json beside it.

    Raises:
        FileNotFoundError: If a file is not there, with its name.
        ValueError: If a file is damaged, holds something else, or may be one of several.
    """
    if not source.exists():
        raise FileNotFoundError(f"no such folder or file: {source}")
    config = _read_json((source if source.is_dir() else source.parent) / "config.json")
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(source):
        loaded = _load(path)
        if twice := sorted(tensors.keys() & loaded.keys()):
            raise ValueError(f"{path}: weights must be in one file each, got again {', '.join(twice)}")
        tensors |= loaded
    return config, tensors


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to, which becomes `folder` if all goes well and vanishes otherwise.

    Raises:
        FileExistsError: If `folder` exists already.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; name a new folder, or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        # One level deeper, as mkdtemp's own folder is closed to everybody else.
        (aside / folder.name).mkdir()
        yield aside / folder.name
        (aside / folder.name).rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _weight_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (source / index).is_file():
            return _shards(source / index)
    for endings in ((".safetensors",), _PICKLES):
        found = sorted(path for path in source.iterdir() if path.suffix in endings)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ValueError(
                f"{source}: weights must be in one file, or listed by an index; name one of {names}"
            )
        if found:
            return found
    raise FileNotFoundError(f"{source} holds no weights: no .safetensors, {', '.join(_PICKLES)} file")


def _shards(index: Path) -> list[Path]:
    listed = _read_json(index).get("weight_map")
    if not isinstance(listed, Mapping) or not all(isinstance(name, str) for name in listed.values()):
        raise ValueError(f"{index}: weight_map must name a file for every weight")
    names = sorted(set(listed.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{index}: files must lie beside it, got {', '.join(outside)}")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise FileNotFoundError(f"{index} lists files that are not there: {', '.join(missing)}")
    return [index.parent / name for name in names]


def _load(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
    if path.suffix not in _PICKLES:
        raise ValueError(f"{path}: weights must be .safetensors, {', '.join(_PICKLES)}, got {path.suffix!r}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is damaged, or a pickle that would run code, and was not loaded ({reason}); ask for the "
            "weights as .safetensors"
        ) from error
    if not isinstance(loaded, Mapping) or not all(isinstance(x, Tensor) for x in loaded.values()):
        raise ValueError(f"{path} must hold tensors by name and nothing else, got {_describe(loaded)}")
    return dict(loaded)


def _describe(loaded: object) -> str:
    if not isinstance(loaded, Mapping):
        return f"a {type(loaded).__name__}"
    others = [f"{name!r}: {type(x).__name__}" for name, x in loaded.items() if not isinstance(x, Tensor)]
    return ", ".join(others)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object, got a {type(content).__name__}")
    return content
