"""From a piece of an input to its documents."""

import contextlib
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fwpkm.data.extra import need
from fwpkm.data.shards.damage import at_file, decode_text
from fwpkm.data.shards.pieces import LINES, PACKED_LINES, TABLE, TEXT, Piece, load_dataset
from fwpkm.data.shards.zst import ZstReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text; only whole files have names."""

    text: str
    name: str | None = None


def read_piece(piece: Piece, text_field: str) -> Iterator[Document]:
    """Read the documents of a piece, one by one.

    Args:
        piece: What to read.
        text_field: Where the text is in JSON lines, tables and data sets.

    Raises:
        ValueError: If the input is not what its name says, with file and place.
    """
    match piece.kind:
        case "text":
            yield Document(text=_read_text(piece), name=piece.name)
        case "lines":
            yield from _read_lines(piece, text_field)
        case "packed lines":
            yield from _read_packed_lines(piece, text_field)
        case "table":
            yield from _read_table(piece, text_field)
        case _:
            yield from _read_dataset(piece, text_field)


def _read_text(piece: Piece) -> str:
    with at_file(piece.path, "compressed text file"), _opened(piece.path) as file:
        raw = file.read()
    if not raw.strip():
        raise ValueError(f"{piece.path}: the file holds no text")
    return decode_text(raw, piece.path)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file as bytes, unpacked."""
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(open(path, "rb"))
        if path.endswith(".gz"):
            file = stack.enter_context(gzip.GzipFile(fileobj=file))
        elif path.endswith(".zst"):
            file = stack.enter_context(io.BufferedReader(ZstReader(file), 1 << 20))
        yield file


def _read_lines(piece: Piece, field: str) -> Iterator[Document]:
    """Read the lines that begin in [start, stop), wherever they end."""
    with open(piece.path, "rb") as file:
        file.seek(max(piece.start - 1, 0))
        if piece.start:
            file.readline()  # the line that holds the byte before `start` begins before it
        while (at := file.tell()) < piece.stop and (line := file.readline()):
            if line.strip():
                yield Document(text=_text_of_line(line, field, piece.path, f"byte {at}"))


def _read_packed_lines(piece: Piece, field: str) -> Iterator[Document]:
    blank = True
    with at_file(piece.path, "compressed file"), _opened(piece.path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                blank = False
                yield Document(text=_text_of_line(line, field, piece.path, f"line {number}"))
    if blank:
        raise ValueError(f"{piece.path}: the file holds no line")


def _text_of_line(line: bytes, field: str, path: str, place: str) -> str:
    where = f"{path}, {place}"
    try:
        row = json.loads(decode_text(line, where))
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: each line must be a JSON object, got {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: each line must be a JSON object, got {type(row).__name__}")
    return _text_of_row(row, field, where)


def _text_of_row(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise ValueError(
            f"{where}: there must be a field {field!r}, got {', '.join(row)}; name it with --text-field"
        )
    if not isinstance(text := row[field], str):
        raise ValueError(f"{where}: the field {field!r} must be text, got {type(text).__name__}")
    return text


def _read_table(piece: Piece, field: str) -> Iterator[Document]:
    with at_file(piece.path, "Parquet file"):
        table = need("pyarrow.parquet", "data").ParquetFile(piece.path)
        names = table.schema_arrow.names
        columns = [field] if field in names else names
        rows = table.read_row_group(piece.start, columns=columns).to_pylist()
    for i, row in enumerate(rows):
        yield Document(text=_text_of_row(row, field, f"{piece.path}, row {i} of row group {piece.start}"))


def _read_dataset(piece: Piece, field: str) -> Iterator[Document]:
    dataset: Any = load_dataset(piece.path)
    for i in range(piece.start, piece.stop):
        yield Document(text=_text_of_row(dataset[i], field, f"{piece.path}, row {i}"))


def piece_hash_path(piece: Piece) -> Path | None:
    """Return the file whose hash this piece answers for, if it does."""
    return Path(piece.path) if piece.is_first and piece.kind in (TEXT, LINES, PACKED_LINES, TABLE) else None
