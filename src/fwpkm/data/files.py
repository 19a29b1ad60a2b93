"""Files that are whole or not there at all."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

from fwpkm.disk import writing


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write beside `path` and rename at the end; on any error, a full disk among them, leave nothing.

    Raises:
        OSError: If it cannot be written, with its name.
    """
    aside = path.with_name(path.name + ".part")
    try:
        with writing(path), open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def write_array(path: Path, array: np.ndarray) -> str:
    """Write a .npy file, whole or not at all; return its hash."""
    with whole_file(path) as file:
        # Given a file, numpy writes past Python and cannot say why it stopped.
        plain: Any = SimpleNamespace(write=file.write)
        np.lib.format.write_array(plain, array, allow_pickle=False)
    return hash_file(path)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: If it is missing or not JSON, with the place.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: this must be JSON, got {error}") from None


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
