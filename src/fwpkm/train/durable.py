"""Folders that are whole or not there: written aside, synchronised, renamed, and checked when read."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from fwpkm.files import UNFINISHED, hash_file, sync, write_json

MANIFEST = "manifest.json"
"""Lists a folder's files with their sizes and hashes; written last."""


class UnreadableError(Exception):
    """A folder or file is not what was written."""


def begin_folder(path: Path) -> Path:
    """Return an empty folder to write files into that `finish_folder` turns into `path`."""
    aside = path.with_name(f"{path.name}{UNFINISHED}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def finish_folder(aside: Path, path: Path) -> None:
    """Seal a folder's files with a manifest and give it its name, in one instant.

    Raises:
        FileExistsError: If `path` is a whole folder already.
    """
    files = sorted(p for p in aside.iterdir() if p.is_file())
    for file in files:
        sync(file)
    listing = {p.name: {"bytes": p.stat().st_size, "sha256": hash_file(p)} for p in files}
    write_json(aside / MANIFEST, {"files": listing, "sha256": _listing_hash(listing)})
    sync(aside)
    os.rename(aside, path)
    sync(path.parent)


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        listing, expected = manifest["files"], manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{path}: no readable {MANIFEST} ({error})") from error
    if _listing_hash(listing) != expected:
        raise UnreadableError(f"{path / MANIFEST}: its contents are not those that were written")
    assert isinstance(listing, dict)
    return listing


def _listing_hash(listing: object) -> str:
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def check_folder(path: Path) -> None:
    """Check that a folder holds what its manifest says.

    Raises:
        UnreadableError: Naming the file and what is wrong with it.
    """
    for name, expected in _read_manifest(path).items():
        file = path / name
        if not file.is_file():
            raise UnreadableError(f"{file}: missing")
        if file.stat().st_size != expected["bytes"]:
            raise UnreadableError(f"{file}: must have {expected['bytes']} bytes, got {file.stat().st_size}")
        if hash_file(file) != expected["sha256"]:
            raise UnreadableError(f"{file}: its contents are not those that were written")


def remove_folder(path: Path) -> None:
    """Remove a folder, such that no half-removed one is ever taken for a whole one."""
    aside = path.with_name(f"{path.name}{UNFINISHED}")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(path, aside)
    shutil.rmtree(aside)


def remove_unfinished(parent: Path) -> None:
    """Remove what writers left behind when they were stopped."""
    for path in parent.glob(f"*{UNFINISHED}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
