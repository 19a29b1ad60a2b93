"""Documents as tokens, in memory or mapped from shards: one long stream with known boundaries."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer

from fwpkm.data.tokenizer.protocol import Tokenizer


@runtime_checkable
class TokenArray(Protocol):
    """One-dimensional integers that can be sliced: a numpy array, or one that stays on disk."""

    def __len__(self) -> int:
        """Count the tokens."""

    def __getitem__(self, part: slice) -> np.ndarray:
        """Return some of them."""


class TokenDocuments:
    """Documents one after another; every one ends with its end-of-text token.

    Args:
        tokens: The tokens of each shard; memory-mapped arrays stay on disk.
        offsets: For each shard where its documents begin, and where the last one ends.
        names: What the documents are called, in the same order, or None if nobody said.
        eos_id: The token that ends each document.

    Raises:
        ValueError: If there is no document.
    """

    def __init__(
        self,
        tokens: Sequence[TokenArray],
        offsets: Sequence[Int[np.ndarray, " _"]],
        *,
        eos_id: int,
        names: Sequence[str] | None = None,
    ) -> None:
        if not sum(len(part) - 1 for part in offsets):
            raise ValueError("TokenDocuments: there must be at least one document, got none")
        self.eos_id = eos_id
        self._shards = list(tokens)
        self._shard_starts = np.cumsum([0, *(len(part) for part in tokens)])
        starts = [part[:-1] + at for part, at in zip(offsets, self._shard_starts[:-1], strict=True)]
        self.offsets: Int[np.ndarray, " D_plus_1"] = np.append(np.concatenate(starts), self._shard_starts[-1])
        self._names = names

    @classmethod
    def from_tokens(
        cls,
        documents: Sequence[Integer[np.ndarray, " _"]],
        *,
        eos_id: int,
        names: Sequence[str] | None = None,
    ) -> "TokenDocuments":
        """Hold token arrays in memory; the end-of-text token is put after each."""
        ended = [np.append(np.asarray(tokens, np.int64), eos_id) for tokens in documents]
        offsets = np.cumsum([0, *(len(tokens) for tokens in ended)])
        return cls([np.concatenate([np.zeros(0, np.int64), *ended])], [offsets], eos_id=eos_id, names=names)

    @classmethod
    def from_texts(
        cls, texts: Sequence[str], tokenizer: Tokenizer, *, names: Sequence[str] | None = None
    ) -> "TokenDocuments":
        """Encode texts and hold them in memory."""
        return cls.from_tokens(tokenizer.encode_many(texts), eos_id=tokenizer.eos_id, names=names)

    @property
    def num_tokens(self) -> int:
        """Count the tokens, end-of-text tokens included."""
        return int(self.offsets[-1])

    @property
    def num_documents(self) -> int:
        """Count the documents."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[np.ndarray, " D"]:
        """Count the tokens of each document, end-of-text token included."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return self.num_documents

    def __getitem__(self, index: int) -> Int[np.ndarray, " T"]:
        """Return one document, end-of-text token included."""
        if not 0 <= index < self.num_documents:
            raise IndexError(f"TokenDocuments: document must be in [0, {self.num_documents}), got {index}")
        return self.slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def __iter__(self) -> Iterator[Int[np.ndarray, " T"]]:
        return (self[i] for i in range(self.num_documents))

    def name(self, index: int) -> str:
        """Say what a document is called; its number if nobody said."""
        return self._names[index] if self._names is not None else f"document {index}"

    def slice(self, start: int, stop: int) -> Int[np.ndarray, " T"]:
        """Return the tokens [start, stop) of the whole stream, over shard borders, as a fresh int64 array."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(
                f"TokenDocuments: 0 <= start <= stop <= {self.num_tokens}, got {start} and {stop}"
            )
        first = int(np.searchsorted(self._shard_starts, start, side="right")) - 1
        parts = [np.zeros(0, np.int64)]
        for shard, at in zip(self._shards[first:], self._shard_starts[first:], strict=False):
            if at >= stop:
                break
            parts.append(shard[max(start - at, 0) : stop - at].astype(np.int64))
        return np.concatenate(parts)
