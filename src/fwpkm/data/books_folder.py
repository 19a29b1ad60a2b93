"""A folder of books as `fwpkm data get` leaves it: texts, and a manifest of where they came from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fwpkm.files import hash_file, read_json, write_json
from fwpkm.nested import from_mapping, to_mapping

FILE = "books.json"
FORMAT = "fwpkm books"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookEntry:
    """One text and where it came from."""

    file: str
    """Path inside the folder."""
    origin: str
    """Package and version."""
    licence: str
    split: Literal["train", "held_out"]
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksManifest:
    """All texts of a folder."""

    books: tuple[BookEntry, ...]


def write_books(folder: Path, books: Sequence[BookEntry]) -> None:
    """Write the manifest of a folder."""
    write_json(folder / FILE, {"format": FORMAT, **to_mapping(BooksManifest(books=tuple(books)))})


def read_folder(folder: Path) -> BooksManifest:
    """Read the manifest of a folder.

    Raises:
        ValueError: If it is missing, or none of ours, or damaged.
    """
    raw: Any = read_json(folder / FILE)
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise ValueError(f"{folder / FILE}: format must be {FORMAT!r}; get the books again")
    try:
        return from_mapping(BooksManifest, raw)
    except ValueError as error:
        raise ValueError(f"{folder / FILE}: {error}") from None


def read_books(inputs: Sequence[str]) -> dict[str, BookEntry]:
    """Return what the folders among the inputs say about their texts, under the names that a build gives them.

    Raises:
        ValueError: If a text is not the one that its manifest speaks of.
    """
    found: dict[str, BookEntry] = {}
    for folder in (Path(given) for given in inputs):
        if (folder / FILE).is_file():
            found |= {
                name_below(folder, book.file): _checked(folder, book) for book in read_folder(folder).books
            }
    return found


def name_below(folder: Path, file: str | Path) -> str:
    """Return what a file in an input folder is called: the folder's own name, however it was given, and the path."""
    return (Path(os.path.abspath(folder)).name / Path(file)).as_posix()


def _checked(folder: Path, book: BookEntry) -> BookEntry:
    file = folder / book.file
    if not file.is_file():
        raise ValueError(f"{file}: the file is missing, though {FILE} lists it; get the books again")
    if hash_file(file) != book.sha256:
        raise ValueError(
            f"{file}: the text is not the one that {FILE} lists (SHA-256 differs); get the books again"
        )
    return book
