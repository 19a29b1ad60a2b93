"""Open a corpus of token shards, and find out whether it is sound."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer

from fwpkm.data.documents import TokenDocuments
from fwpkm.data.shards.manifest import SPLITS, Manifest, ShardEntry, read_manifest
from fwpkm.data.tokenizer import Tokenizer, load_tokenizer
from fwpkm.data.tokenizer.protocol import KEPT
from fwpkm.files import hash_file, read_json
from fwpkm.nested import unknown_name

_OPEN_AT_ONCE = 128


class MappedTokens:
    """The tokens of a shard, read from disk when they are asked for; only some files are open at a time."""

    def __init__(self, path: Path, length: int, vocab_size: int) -> None:
        self.path, self._length, self._vocab_size = path, length, vocab_size
        self._stamp = path.stat().st_mtime_ns  # a corpus built anew in the same place is another one

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> Integer[np.ndarray, " T"]:
        """Return some of them.

        Raises:
            ValueError: If one is no token of the tokenizer that made them, with the place.
        """
        tokens = _mapped(self.path, self._stamp)[part]
        problem = _beyond(self.path, tokens, self._vocab_size, start=part.indices(self._length)[0])
        if problem:
            raise ValueError(
                f"{problem}; `fwpkm data verify` tells what else is wrong; build the corpus again"
            )
        return tokens


class TokenCorpus:
    """Token shards on disk, with their manifest; made by `open_corpus`.

    Args:
        path: The directory.
        manifest: What it says about itself.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    def documents(self, split: str = "train") -> TokenDocuments:
        """Return the documents of a split, memory-mapped.

        Raises:
            ValueError: If there is no such split, or nothing in it.
        """
        if split not in SPLITS:
            raise ValueError(f"{self.path}: {unknown_name('split', split, SPLITS)}")
        shards = [shard for shard in self.manifest.shards if shard.split == split]
        if not shards:
            raise ValueError(f"{self.path}: the split {split!r} is empty; build with --held-out")
        return TokenDocuments(
            [
                MappedTokens(
                    _tokens_file(self.path, shard), shard.num_tokens, self.manifest.tokenizer.vocab_size
                )
                for shard in shards
            ],
            [np.load(_offsets_file(self.path, shard)) for shard in shards],
            eos_id=self.manifest.tokenizer.eos_id,
            names=self._names(shards),
        )

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer that made the tokens.

        Raises:
            ValueError: If the one kept here is another one.
        """
        tokenizer = load_tokenizer(self.path / "tokenizer")
        if tokenizer.fingerprint != self.manifest.tokenizer.fingerprint:
            raise ValueError(
                f"{self.path / 'tokenizer'}: the fingerprint must be {self.manifest.tokenizer.fingerprint}, as the "
                f"manifest says, got {tokenizer.fingerprint}; build the corpus again"
            )
        return tokenizer

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Refuse tokens that another tokenizer made.

        Raises:
            ValueError: If the fingerprints differ.
        """
        made_by = self.manifest.tokenizer
        if made_by.fingerprint != tokenizer.fingerprint:
            raise ValueError(
                f"{self.path}: tokens were made by {made_by.name!r} ({made_by.fingerprint}), got the tokenizer "
                f"{tokenizer.name!r} ({tokenizer.fingerprint}); use the corpus's own or build again"
            )

    def _names(self, shards: Sequence[ShardEntry]) -> list[str] | None:
        if not any(shard.has_names for shard in shards):
            return None
        names: list[str] = []
        for shard in shards:
            unnamed = [f"{shard.stem} document {i}" for i in range(shard.num_documents)]
            names += read_json(_names_file(self.path, shard)) if shard.has_names else unnamed
        return names


def open_corpus(path: Path | str) -> TokenCorpus:
    """Open a corpus and check that every file is there, whole, and as long as the manifest says.

    Raises:
        ValueError: With everything that is wrong, each with its file; `verify_corpus` looks deeper.
    """
    path = Path(path)
    manifest = read_manifest(path)
    problems = [problem for shard in manifest.shards for problem in _check_sizes(path, shard, manifest.dtype)]
    if not (kept := path / "tokenizer" / KEPT).is_file():
        problems.append(f"{kept}: the file is missing; build the corpus again")
    if problems:
        raise ValueError("\n".join(problems))
    return TokenCorpus(path, manifest)


def verify_corpus(path: Path | str) -> TokenCorpus:
    """Open a corpus and read all of it: hashes, document borders, token ranges and the tokenizer.

    Raises:
        ValueError: With everything that is wrong, each with its file and place.
    """
    corpus = open_corpus(path)
    problems = [problem for shard in corpus.manifest.shards for problem in _check_content(corpus, shard)]
    try:
        corpus.tokenizer()
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return corpus


def _check_sizes(path: Path, shard: ShardEntry, dtype: str) -> list[str]:
    wanted = (
        (_tokens_file(path, shard), shard.num_tokens, dtype),
        (_offsets_file(path, shard), shard.num_documents + 1, "int64"),
    )
    problems = [problem for file, length, kind in wanted if (problem := _check_array(file, length, kind))]
    if not problems:
        problems += _check_offsets(_offsets_file(path, shard), shard)
    if shard.has_names and not _names_file(path, shard).is_file():
        problems.append(f"{_names_file(path, shard)}: the file is missing; build the corpus again")
    return problems


def _check_array(file: Path, length: int, dtype: str) -> str | None:
    if not file.is_file():
        return f"{file}: the file is missing; build the corpus again"
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        size = file.stat().st_size
        return f"{file}: the file is truncated or damaged ({size} bytes: {error}); build the corpus again"
    if array.shape != (length,) or array.dtype != np.dtype(dtype):
        return (
            f"{file}: the manifest says {length} numbers of {dtype}, got shape {array.shape} of {array.dtype}; "
            "build the corpus again"
        )
    header_bytes = int(array.offset)
    if (size := file.stat().st_size) != header_bytes + array.nbytes:
        return f"{file}: the file must have {header_bytes + array.nbytes} bytes, got {size}; build the corpus again"
    return None


def _check_offsets(file: Path, shard: ShardEntry) -> list[str]:
    offsets: Int[np.ndarray, " D"] = np.load(file)
    if (
        offsets[0] != 0
        or offsets[-1] != shard.num_tokens
        or (falls := np.flatnonzero(np.diff(offsets) < 1)).size
    ):
        at = f" at document {falls[0]}" if offsets[0] == 0 and offsets[-1] == shard.num_tokens else ""
        return [
            f"{file}: document borders must rise from 0 to {shard.num_tokens}, got others{at}; build the corpus again"
        ]
    return []


def _check_content(corpus: TokenCorpus, shard: ShardEntry) -> list[str]:
    tokens_file, offsets_file = _tokens_file(corpus.path, shard), _offsets_file(corpus.path, shard)
    problems = [
        f"{file}: the content is not what was built (SHA-256 differs); build the corpus again"
        for file, wanted in ((tokens_file, shard.tokens_sha256), (offsets_file, shard.offsets_sha256))
        if hash_file(file) != wanted
    ]
    tokens, made_by = np.load(tokens_file, mmap_mode="r"), corpus.manifest.tokenizer
    if beyond := _beyond(tokens_file, tokens, made_by.vocab_size):
        problems.append(beyond)
    ends = tokens[np.load(offsets_file)[1:] - 1]
    if (open_ended := np.flatnonzero(ends != made_by.eos_id)).size:
        problems.append(f"{tokens_file}: document {open_ended[0]} must end with token {made_by.eos_id}")
    return problems


def _beyond(file: Path, tokens: Integer[np.ndarray, " T"], vocab_size: int, *, start: int = 0) -> str | None:
    """Say where the first number is that is no token, if one is; `start` is where in the file they begin."""
    if not len(tokens) or tokens.max() < vocab_size:
        return None
    place = int(np.argmax(tokens >= vocab_size))
    return f"{file}: tokens must be below {vocab_size}, got {tokens[place]} at {start + place}"


@lru_cache(maxsize=_OPEN_AT_ONCE)
def _mapped(path: Path, stamp: int) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _tokens_file(path: Path, shard: ShardEntry) -> Path:
    return path / f"{shard.stem}.tokens.npy"


def _offsets_file(path: Path, shard: ShardEntry) -> Path:
    return path / f"{shard.stem}.offsets.npy"


def _names_file(path: Path, shard: ShardEntry) -> Path:
    return path / f"{shard.stem}.names.json"
