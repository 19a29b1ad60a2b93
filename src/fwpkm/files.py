"""Files that are the old one or the new one, whenever the machine stops, and say why where they can't be written."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

UNFINISHED = ".unfinished"
"""Ends the names of files and folders that somebody is writing, or was when the machine stopped."""


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give errors of a write the name of its file; those of a full disk come without one.

    Raises:
        OSError: What the system says about `path`, through safetensors too.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{os.fspath(path)}: this could not be written ({error})") from error
        code = int(number[1])
        raise OSError(code, os.strerror(code), os.fspath(path)) from error
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def whole_path(path: Path, aside: Path | None = None) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` once it is safely on disk; on any error it vanishes.

    Args:
        path: The file; an older one stays until then.
        aside: Where to write, in the same folder; needed where several may write `path` at the same time.

    Raises:
        OSError: If it cannot be written, as on a full disk, with the name of `path`.
    """
    aside = path.with_name(f"{path.name}{UNFINISHED}") if aside is None else aside
    aside.unlink(missing_ok=True)
    try:
        with writing(path):
            yield aside
            _flush(aside)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write to, likewise."""
    with whole_path(path) as aside, open(aside, "wb") as file:
        yield file


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a file of text in UTF-8, whole or not at all; halves of surrogate pairs stay what they are."""
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def write_json(path: Path, value: Any, *, indent: int = 1) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_array(path: Path, array: np.ndarray) -> str:
    """Write a .npy file, whole or not at all; return its hash."""
    with whole_file(path) as file:
        # Given a file, numpy writes past Python and cannot say why it stopped.
        plain: Any = SimpleNamespace(write=file.write)
        np.lib.format.write_array(plain, array, allow_pickle=False)
    return hash_file(path)


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    aside: Path | None = None,
) -> None:
    """Write tensors of any device as a safetensors file, whole or not at all, readable by whom files usually are."""
    named = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    with whole_path(path, aside) as beside:
        # The library keeps its files to their owner, whatever the process's files usually may.
        beside.touch(exist_ok=False)
        mode = beside.stat().st_mode
        save_file(named, beside, None if metadata is None else dict(metadata))
        beside.chmod(mode)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: If it is missing or not JSON, with the place.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: this must be JSON, got {error}") from None


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's names, are on disk.

    Raises:
        OSError: With its name, if they can't be.
    """
    with writing(path):
        _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
