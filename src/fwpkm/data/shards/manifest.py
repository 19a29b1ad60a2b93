"""What is written down about a corpus of token shards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fwpkm.files import read_json
from fwpkm.nested import from_mapping, to_mapping, unknown_name

FORMAT = "fwpkm token shards"
VERSION = 1
FILE = "manifest.json"
SPLITS = ("train", "held_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerEntry:
    """Which tokenizer made the tokens; it is kept in the directory `tokenizer` beside them."""

    name: str
    fingerprint: str
    vocab_size: int
    eos_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntry:
    """Where some of the text came from."""

    name: str
    """The input, as it was given."""
    origin: str = "unknown"
    """Who published it: a package and its version, an address, a data set."""
    licence: str = "unknown"
    num_bytes: int | None = None
    sha256: str | None = None
    """Of the input file; unset for data sets, which have no file."""
    fingerprint: str | None = None
    """Of a data set: what the library `datasets` says of its content; unset for files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One shard: the files STEM.tokens.npy, STEM.offsets.npy and, if documents have names, STEM.names.json."""

    stem: str
    split: str
    num_tokens: int
    num_documents: int
    tokens_sha256: str
    offsets_sha256: str
    has_names: bool = False

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"ShardEntry: {unknown_name('split', self.split, SPLITS)}")
        if Path(self.stem).name != self.stem:
            raise ValueError(f"ShardEntry: stem must be a file's name, got {self.stem!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All there is to know about a corpus of token shards."""

    tokenizer: TokenizerEntry
    dtype: str
    shards: tuple[ShardEntry, ...]
    sources: tuple[SourceEntry, ...]
    num_empty: int = 0
    """Empty documents that were left out."""

    def num_tokens(self, split: str) -> int:
        """Count the tokens of a split, end-of-text tokens included."""
        return sum(shard.num_tokens for shard in self.shards if shard.split == split)

    def num_documents(self, split: str) -> int:
        """Count the documents of a split."""
        return sum(shard.num_documents for shard in self.shards if shard.split == split)


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """Spell a manifest out for its file."""
    return {"format": FORMAT, "version": VERSION, **to_mapping(manifest)}


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a corpus.

    Raises:
        ValueError: If there is none, or it is none of ours, or it is damaged, with the file and what is wrong.
    """
    file = directory / FILE
    if not file.is_file():
        building = directory.with_name(directory.name + ".building")
        half = f"; {building} is unfinished, run the same build again" if building.is_dir() else ""
        raise ValueError(f"{directory}: a corpus must hold {FILE}, got none{half}")
    raw = read_json(file)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError(f"{file}: format must be {FORMAT!r}; build the corpus with `fwpkm data build`")
    if raw.get("version") != VERSION:
        raise ValueError(
            f"{file}: version must be {VERSION}, got {raw.get('version')!r}; build the corpus again"
        )
    body = {name: value for name, value in raw.items() if name not in ("format", "version")}
    try:
        return from_mapping(Manifest, body)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
