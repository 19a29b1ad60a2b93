"""One unit of work: read its pieces, encode them, write its shards. Runs in a process of its own."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from jaxtyping import Int

from fwpkm.data.shards.manifest import ShardEntry, SourceEntry
from fwpkm.data.shards.pieces import Piece
from fwpkm.data.shards.read import Document, piece_hash_path, read_piece
from fwpkm.data.tokenizer import Tokenizer, load_tokenizer
from fwpkm.data.tokenizer.protocol import fingerprint_of
from fwpkm.files import hash_file, write_array, write_json
from fwpkm.nested import to_mapping

_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What decides the content of a corpus, beside its inputs."""

    text_field: str = "text"
    """Where the text is in JSON lines, tables and data sets."""
    held_out: float = 0.0
    """Share of the documents, picked by a hash of their text, so that copies of a text stay together."""
    held_out_names: tuple[str, ...] = ()
    """Patterns (as in a shell) of names of files that are held out as a whole."""
    shard_tokens: int = 1 << 27
    """Tokens after which a new shard is begun."""
    origin: str = "unknown"
    """Who published the text."""
    licence: str = "unknown"
    """Under which terms."""

    def __post_init__(self) -> None:
        problems = [] if 0 <= self.held_out < 1 else [f"held_out must be in [0, 1), got {self.held_out}"]
        if self.shard_tokens < 1:
            problems.append(f"shard_tokens must be at least 1, got {self.shard_tokens}")
        if problems:
            raise ValueError("BuildOptions: " + "; ".join(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What a finished unit leaves behind."""

    shards: tuple[ShardEntry, ...]
    sources: tuple[SourceEntry, ...]
    num_empty: int


@dataclass(slots=True, kw_only=True)
class _Shard:
    """Documents of one split that wait to be written."""

    tokens: list[Int[np.ndarray, " _"]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    num_tokens: int = 0

    def add(self, tokens: Int[np.ndarray, " _"], name: str | None) -> None:
        self.tokens.append(tokens)
        self.names.append(name)
        self.num_tokens += len(tokens)


def token_dtype(vocab_size: int) -> str:
    """Return the smallest unsigned integers that hold all ids."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class UnitWriter:
    """Turns units into shards in one directory.

    Args:
        directory: Where the corpus is being built; the tokenizer lies in it.
        options: What else decides the content.
    """

    def __init__(self, directory: Path, options: BuildOptions) -> None:
        self.directory, self.options = directory, options
        self.tokenizer: Tokenizer = load_tokenizer(directory / "tokenizer")

    def write(self, number: int, pieces: tuple[Piece, ...]) -> UnitResult:
        """Write the shards of unit `number`, and last of all its result, which says that they are whole."""
        for stale in self.directory.glob(f"unit-{number:05d}-*.json"):
            stale.unlink()  # its shards have the names of those that are written now
        open_shards = {"train": _Shard(), "held_out": _Shard()}
        entries: list[ShardEntry] = []
        num_empty = 0
        for piece in pieces:
            for batch in _batches(piece, self.options.text_field):
                filled = [document for document in batch if document.text.strip()]
                num_empty += len(batch) - len(filled)
                for document, tokens in zip(filled, self._encode(filled, piece), strict=True):
                    split = self._split(document)
                    open_shards[split].add(tokens, document.name)
                    if open_shards[split].num_tokens >= self.options.shard_tokens:
                        entries.append(self._flush(number, len(entries), split, open_shards[split]))
                        open_shards[split] = _Shard()
        for split, shard in open_shards.items():
            if shard.tokens:
                entries.append(self._flush(number, len(entries), split, shard))
        sources = tuple(self._source(piece) for piece in pieces if piece.is_first)
        result = UnitResult(shards=tuple(entries), sources=sources, num_empty=num_empty)
        key = unit_key(pieces, self.tokenizer, self.options)
        write_json(result_file(self.directory, number, key), to_mapping(result))
        return result

    def _encode(self, documents: list[Document], piece: Piece) -> list[Int[np.ndarray, " _"]]:
        try:
            encoded = self.tokenizer.encode_many([document.text for document in documents])
        except ValueError as error:
            raise ValueError(f"{piece.path}: {error}") from None
        return [np.append(tokens, self.tokenizer.eos_id) for tokens in encoded]

    def _split(self, document: Document) -> str:
        if document.name and any(fnmatch(document.name, pattern) for pattern in self.options.held_out_names):
            return "held_out"
        digest = hashlib.sha256(document.text.encode("utf-8", "surrogatepass")).digest()
        share = int.from_bytes(digest[:8], "little") / 2**64
        return "held_out" if share < self.options.held_out else "train"

    def _flush(self, number: int, part: int, split: str, shard: _Shard) -> ShardEntry:
        stem = f"{split}-{number:05d}-{part:03d}"
        tokens = np.concatenate(shard.tokens).astype(token_dtype(self.tokenizer.vocab_size))
        offsets = np.cumsum([0, *(len(document) for document in shard.tokens)], dtype=np.int64)
        has_names = any(name is not None for name in shard.names)
        if has_names:
            named = [name or f"{stem} document {i}" for i, name in enumerate(shard.names)]
            write_json(self.directory / f"{stem}.names.json", named)
        return ShardEntry(
            stem=stem,
            split=split,
            num_tokens=shard.num_tokens,
            num_documents=len(shard.tokens),
            tokens_sha256=write_array(self.directory / f"{stem}.tokens.npy", tokens),
            offsets_sha256=write_array(self.directory / f"{stem}.offsets.npy", offsets),
            has_names=has_names,
        )

    def _source(self, piece: Piece) -> SourceEntry:
        file = piece_hash_path(piece)
        return SourceEntry(
            name=piece.name,
            origin=self.options.origin,
            licence=self.options.licence,
            num_bytes=file.stat().st_size if file else None,
            sha256=hash_file(file) if file else None,
            fingerprint=piece.fingerprint,
        )


def unit_key(pieces: tuple[Piece, ...], tokenizer: Tokenizer, options: BuildOptions) -> str:
    """Hash all that decides a unit's shards: a result under this key need not be made again."""
    changed = [os.stat(p.path).st_mtime_ns for p in pieces if os.path.exists(p.path)]
    decides = [[to_mapping(p) for p in pieces], changed, tokenizer.fingerprint, to_mapping(options)]
    return fingerprint_of(json.dumps(decides).encode())


def result_file(directory: Path, number: int, key: str) -> Path:
    """Say where the result of a unit is written."""
    return directory / f"unit-{number:05d}-{key}.json"


def _batches(piece: Piece, text_field: str) -> Iterator[list[Document]]:
    """Gather documents until there is enough text to encode at once."""
    batch: list[Document] = []
    held = 0
    for document in read_piece(piece, text_field):
        batch.append(document)
        held += len(document.text)
        if held >= _BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    yield batch
