"""Training sequences by number: any one can be made without the others, so a run resumes exactly."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from fwpkm.data.documents import TokenDocuments
from fwpkm.data.shuffle import Shuffle, mix


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """One training sequence: T inputs, and the token that follows each."""

    tokens: Int[np.ndarray, " T_plus_1"]
    """T inputs and the last target."""
    weights: Float[np.ndarray, " T"] | None = None
    """How much each target counts in the loss; None is 1 for all."""
    starts: Bool[np.ndarray, " T"] | None = None
    """Where an input is the first of a document; None is at the first only."""


@runtime_checkable
class SequenceSource(Protocol):
    """Endless training sequences, numbered from 0."""

    seq_len: int

    def sequence(self, index: int) -> TokenSequence:
        """Make sequence `index`; equal numbers give equal sequences, always."""


def draw(seed: int, *place: int) -> torch.Generator:
    """Seed a generator for one place of a run, independent of all others."""
    return torch.Generator().manual_seed(mix(seed, *place))


class PackedSequences:
    """Documents joined end to end and cut every `seq_len` tokens; each epoch in another order and other cuts.

    Args:
        documents: What to cut.
        seq_len: T, inputs of a sequence.
        seed: Decides order and cuts.
        shuffle: False reads straight on from the first token, epoch after epoch.

    Raises:
        ValueError: If there are not enough tokens for one sequence.
    """

    def __init__(
        self, documents: TokenDocuments, *, seq_len: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        _check_length(seq_len)
        self.documents, self.seq_len, self.seed, self.shuffle = documents, seq_len, seed, shuffle
        self.per_epoch = (documents.num_tokens - 1) // seq_len
        if self.per_epoch < 1:
            raise ValueError(
                f"PackedSequences: there must be more than seq_len tokens, got {documents.num_tokens} with "
                f"seq_len={seq_len}; add text or shorten the sequences"
            )

    def sequence(self, index: int) -> TokenSequence:
        """Cut sequence `index`."""
        start = self._start(*divmod(index, self.per_epoch))
        tokens = self.documents.slice(start, start + self.seq_len + 1)
        return TokenSequence(tokens=tokens, starts=_starts(self.documents, start, self.seq_len))

    def _start(self, epoch: int, place: int) -> int:
        if not self.shuffle:
            return place * self.seq_len
        place = Shuffle(size=self.per_epoch, seed=mix(self.seed, epoch))[place]
        slack = self.documents.num_tokens - 1 - self.per_epoch * self.seq_len
        return place * self.seq_len + mix(self.seed, epoch, -1) % (slack + 1)


class CroppedSequences:
    """Random pieces of `seq_len` tokens, each from inside one document; longer documents come up more often.

    Args:
        documents: What to cut from; those of at most `seq_len` tokens are never used.
        seq_len: T, inputs of a sequence.
        seed: Decides the pieces.

    Raises:
        ValueError: If no document is long enough.
    """

    def __init__(self, documents: TokenDocuments, *, seq_len: int, seed: int = 0) -> None:
        _check_length(seq_len)
        self.documents, self.seq_len, self.seed = documents, seq_len, seed
        self._ends = np.cumsum(np.maximum(documents.lengths - seq_len, 0))
        if not self._ends[-1]:
            raise ValueError(
                f"CroppedSequences: a document must have more than seq_len={seq_len} tokens, got at most "
                f"{documents.lengths.max()}; shorten the sequences or use packed ones"
            )

    def sequence(self, index: int) -> TokenSequence:
        """Cut piece `index`."""
        place = int(torch.randint(int(self._ends[-1]), (), generator=draw(self.seed, index)))
        document = int(np.searchsorted(self._ends, place, side="right"))
        start = int(self.documents.offsets[document] + place - (self._ends[document - 1] if document else 0))
        return TokenSequence(tokens=self.documents.slice(start, start + self.seq_len + 1))


def _check_length(seq_len: int) -> None:
    if seq_len < 1:
        raise ValueError(f"seq_len must be at least 1, got {seq_len}")


def _starts(documents: TokenDocuments, start: int, length: int) -> Bool[np.ndarray, " T"]:
    starts = np.zeros(length, bool)
    first, last = np.searchsorted(documents.offsets, [start, start + length])
    starts[documents.offsets[first:last] - start] = True
    return starts
