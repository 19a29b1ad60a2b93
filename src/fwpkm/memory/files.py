"""Memory files: one safetensors file that is whole or refused, and never half written.

Its metadata holds a header (JSON) with the SHA-256 of every tensor, and the SHA-256 of the header. Whatever
happens to the bytes, a file either reads as what was written or is refused. Nothing in it is ever executed.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fwpkm.files import UNFINISHED, write_tensors

VERSION = 1
"""Of the file format; a reader refuses what it does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFile:
    """What a memory file says, verified."""

    header: Mapping[str, Any]
    """What was saved, under which model, and how."""
    tensors: Mapping[str, Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        missing = [name for name in ("tree", "fingerprint", "rows") if name not in self.header]
        if missing:
            raise ValueError(
                f"MemoryFile: the header must say {', '.join(missing)}; this is another kind of file"
            )


def digest(x: Tensor) -> str:
    """Return the SHA-256 of a tensor's type, shape and bytes."""
    plain = x.detach().cpu().contiguous()
    told = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)} ".encode())
    told.update(plain.flatten().view(torch.uint8).numpy().data)
    return told.hexdigest()


def write_file(path: str | os.PathLike[str], file: MemoryFile) -> int:
    """Write `file` beside `path` and move it there once it is safely on disk; returns its bytes.

    Raises:
        OSError: If it cannot be written, as on a full disk, with its name; what was at `path` is left as it was.
    """
    path = Path(path)
    tensors = {name: x.detach().cpu().contiguous() for name, x in file.tensors.items()}
    hashes = {name: digest(x) for name, x in tensors.items()}
    header = json.dumps(
        {**file.header, "version": VERSION, "tensors": hashes}, sort_keys=True, allow_nan=False
    )
    metadata = {"format": "fwpkm-memory", "header": header, "digest": _text_digest(header)}
    own = path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}")  # others may write it, too
    write_tensors(path, tensors, metadata, aside=own)
    return path.stat().st_size


def read_file(path: str | os.PathLike[str]) -> MemoryFile:
    """Read and verify a memory file.

    Raises:
        ValueError: If it is damaged, from a newer version, or no memory file at all.
        OSError: If it cannot be read.
    """
    where = f"memory file {os.fspath(path)!r}"
    header, tensors = _read_raw(path, where)
    hashes = header.get("tensors", {})
    wrong = sorted(set(tensors) ^ set(hashes))
    wrong += [name for name, x in tensors.items() if name not in wrong and digest(x) != hashes[name]]
    if wrong:
        raise ValueError(
            f"{where}: damaged: {len(wrong)} tensors are not what was written, such as {wrong[0]!r}"
        )
    return MemoryFile(header=header, tensors=tensors)


def _read_raw(path: str | os.PathLike[str], where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{where}: there is no such file")
    try:
        with safe_open(os.fspath(path), framework="pt") as raw:
            header = _checked_header(raw.metadata() or {}, where)
            # Copies, because a tensor that maps the file would change when the file does.
            return header, {name: raw.get_tensor(name).clone() for name in raw.keys()}  # noqa: SIM118
    except (
        SafetensorError,
        UnicodeDecodeError,
        RuntimeError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(f"{where}: damaged, or not a memory file: {error}") from error


def _checked_header(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    if metadata.get("format") != "fwpkm-memory":
        raise ValueError(f"{where}: not a memory file, or its header is damaged")
    text = metadata.get("header", "")
    if metadata.get("digest") != _text_digest(text):
        raise ValueError(f"{where}: damaged: the header is not what was written")
    header = json.loads(text)
    found = header.get("version") if isinstance(header, dict) else None
    if found != VERSION:
        raise ValueError(
            f"{where}: must be of format version {VERSION}, got {found!r}; use the version of fwpkm that wrote it"
        )
    return header


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
