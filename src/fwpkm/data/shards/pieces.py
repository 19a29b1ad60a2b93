"""What is to be read: inputs cut into pieces that one process can take at a time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fwpkm.data.books_folder import name_below
from fwpkm.data.extra import need
from fwpkm.data.shards.damage import at_file

TEXT, LINES, PACKED_LINES, TABLE, DATASET = "text", "lines", "packed lines", "table", "dataset"
_KINDS = {
    ".txt": TEXT, ".md": TEXT, ".txt.gz": TEXT, ".txt.zst": TEXT,
    ".jsonl": LINES, ".ndjson": LINES, ".jsonl.gz": PACKED_LINES, ".jsonl.zst": PACKED_LINES, ".parquet": TABLE,
}  # fmt: skip
_MIN_BYTES, _MAX_BYTES, _UNITS = 1 << 20, 1 << 28, 64
DATASET_PREFIX = "hf:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of an input: bytes of a file, row groups of a table, rows of a data set."""

    kind: str
    path: str
    name: str
    """What the input is called in the manifest and in messages: as it was given."""
    start: int = 0
    stop: int = 0
    num_bytes: int = 0
    fingerprint: str | None = None
    """Of the content of a data set, as its library gives it; files have their time and their hash."""

    @property
    def is_first(self) -> bool:
        """Whether this is the piece that answers for the whole input's hash."""
        return self.start == 0


def plan_units(inputs: Sequence[str]) -> tuple[tuple[Piece, ...], ...]:
    """Cut the inputs into units of work of about equal size; the cut depends on the inputs alone.

    Args:
        inputs: Files, directories (all known files under them, sorted), or data sets as
            "hf:NAME", "hf:NAME:CONFIG" or "hf:NAME:CONFIG@SPLIT".

    Raises:
        ValueError: With every input that is missing, empty or of an unknown kind.
    """
    files, problems = _find_files([i for i in inputs if not i.startswith(DATASET_PREFIX)])
    if problems:
        raise ValueError("\n".join(problems))
    sizes = {path: path.stat().st_size for path, _, _ in files}
    target = min(max(sum(sizes.values()) // _UNITS, _MIN_BYTES), _MAX_BYTES)
    pieces = [piece for path, name, kind in files for piece in _cut(path, name, kind, sizes[path], target)]
    sets = [piece for name in inputs if name.startswith(DATASET_PREFIX) for piece in _cut_dataset(name)]
    if not pieces and not sets:
        raise ValueError(f"inputs: there must be at least one, got none in {list(inputs)}")
    return (*_group(pieces, target), *((piece,) for piece in sets))


def _find_files(inputs: Sequence[str]) -> tuple[list[tuple[Path, str, str]], list[str]]:
    files, problems = [], []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p))
            if not inside:
                problems.append(
                    f"{path}: a directory must hold files of the kinds {', '.join(_KINDS)}, got none"
                )
            files += [(p, name_below(path, p.relative_to(path)), kind_of(p)) for p in inside]
        elif not path.is_file():
            problems.append(f"{path}: there is no such file")
        else:
            files.append((path, given, kind_of(path)))
            if not kind_of(path):
                problems.append(f"{path}: the kind must be one of {', '.join(_KINDS)}")
    problems += [f"{path}: the file is empty" for path, _, kind in files if kind and not path.stat().st_size]
    problems += [
        f"{path}: the file holds no line" for path, _, kind in files if kind == LINES and _is_blank(path)
    ]
    problems += [f"{path}: it is given twice" for path in _repeated([path.resolve() for path, _, _ in files])]
    return [(path, name, kind) for path, name, kind in files if kind], problems


def _is_blank(path: Path) -> bool:
    """Whether a file that is not empty holds white space only; one with text is known by its first bytes."""
    if not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        return not any(part.strip() for part in iter(lambda: file.read(1 << 16), b""))


def kind_of(path: Path) -> str | None:
    """Say how a file is to be read, by its name; None if that is unknown."""
    name = path.name.lower()
    return next((kind for ending, kind in _KINDS.items() if name.endswith(ending)), None)


def _repeated(paths: list[Path]) -> list[Path]:
    return [path for path, times in Counter(paths).items() if times > 1]


def _cut(path: Path, name: str, kind: str, size: int, target: int) -> list[Piece]:
    if kind == TABLE:
        with at_file(str(path), "Parquet file"):
            about = need("pyarrow.parquet", "data").ParquetFile(path).metadata
            groups, rows = about.num_row_groups, about.num_rows
        if not rows:
            raise ValueError(f"{path}: the file holds no row")
        return [
            Piece(kind=kind, path=str(path), name=name, start=i, stop=i + 1, num_bytes=size // groups)
            for i in range(groups)
        ]
    if kind != LINES:
        return [Piece(kind=kind, path=str(path), name=name, stop=size, num_bytes=size)]
    starts = range(0, size, target)
    ends = [*starts[1:], size]
    return [
        Piece(kind=kind, path=str(path), name=name, start=a, stop=b, num_bytes=b - a)
        for a, b in zip(starts, ends, strict=True)
    ]


def _cut_dataset(name: str) -> list[Piece]:
    dataset = load_dataset(name)
    rows = len(dataset)
    if not rows:
        raise ValueError(f"{name}: the data set is empty")
    step = max(1, -(-rows // _UNITS))
    return [
        Piece(
            kind=DATASET,
            path=name,
            name=name,
            start=i,
            stop=min(i + step, rows),
            fingerprint=dataset._fingerprint,
        )
        for i in range(0, rows, step)
    ]


def load_dataset(name: str) -> Any:
    """Load "hf:NAME:CONFIG@SPLIT"; NAME may be a directory that `Dataset.save_to_disk` wrote.

    Raises:
        ValueError: If it cannot be had.
    """
    datasets = need("datasets", "data")
    path, _, split = name.removeprefix(DATASET_PREFIX).partition("@")
    try:
        if Path(path).is_dir() and (Path(path) / "state.json").is_file():
            return datasets.load_from_disk(path)
        path, _, config = path.partition(":")
        return datasets.load_dataset(path, config or None, split=split or "train")
    except Exception as error:  # the library raises whatever its hub, its readers and its scripts raise
        raise ValueError(f"{name}: the data set cannot be loaded: {type(error).__name__}: {error}") from error


def _group(pieces: list[Piece], target: int) -> list[tuple[Piece, ...]]:
    """Put small neighbours together until a unit is full."""
    units: list[tuple[Piece, ...]] = []
    held: list[Piece] = []
    for piece in pieces:
        if held and sum(p.num_bytes for p in held) + piece.num_bytes > target:
            units.append(tuple(held))
            held = []
        held.append(piece)
    return [*units, tuple(held)] if held else units
