"""Batches of training sequences, the same whatever the number of processes, from any point on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fwpkm.data.carried import CarriedLanes
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.sequences import SequenceSource, TokenSequence

IGNORED = -100
"""Target that does not count, as in torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one rank reads in one step."""

    input_ids: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    """The token after each input; -100 where it does not count. Shifted already: compare with the logits in place."""
    weights: Float[Tensor, "B T"]
    """How much each target counts; 0 where `targets` is -100."""
    mask: Bool[Tensor, "B T"]
    """False at padding, which only ends of documents in carried batches have."""
    starts: Bool[Tensor, "B T"]
    """True at the first token of a document."""
    fresh: Bool[Tensor, " B"]
    """Which streams begin anew with this batch; the others go on from the batch before (carried batches only)."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the batch on a device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)}
        return replace(self, **moved)

    @property
    def num_targets(self) -> int:
        """Count the targets that count."""
        return int((self.targets != IGNORED).sum())


@runtime_checkable
class BatchSource(Protocol):
    """An endless iterator of batches whose position can be kept and set."""

    def __iter__(self) -> Iterator[Batch]:
        """Return itself."""

    def __next__(self) -> Batch:
        """Return the next batch of this rank."""

    def state_dict(self) -> dict[str, Any]:
        """Return the position: plain JSON values, the same on every rank."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state_dict` gave, under any number of ranks."""


class SequenceBatches:
    """Batches of independent sequences: every stream starts fresh with every batch.

    Args:
        source: Makes sequence i.
        batch_size: Sequences of a step over all ranks together.
        rank: Which part is ours, 0 <= rank < world_size.
        world_size: Number of ranks; divides `batch_size`.

    Raises:
        ValueError: If the ranks do not divide the batch.
    """

    def __init__(
        self, source: SequenceSource, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.source, self.batch_size = source, batch_size
        self._mine = rank_slice(batch_size, rank, world_size)
        self._consumed = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        rows = [self.source.sequence(self._consumed + i) for i in self._mine]
        self._consumed += self.batch_size
        return collate(rows)

    def state_dict(self) -> dict[str, Any]:
        """Return how many sequences all ranks together have consumed."""
        return {"kind": "sequences", "consumed": self._consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after so many sequences.

        Raises:
            ValueError: If the position is of another kind of source.
        """
        _check_kind(state, "sequences")
        self._consumed = int(state["consumed"])


class CarriedBatches:
    """Batches whose streams go on: each stream reads documents from end to end, `seq_len` tokens a step.

    A stream whose document has ended starts the next one, `fresh`, in the next batch; what is left over in a
    document's last batch is padding.

    Args:
        documents: What to read; those of one token are skipped.
        batch_size: Streams over all ranks together.
        seq_len: T, tokens a step.
        seed: Decides the order of the documents.
        rank: Which part is ours.
        world_size: Number of ranks; divides `batch_size`.
        fill: What stands at padding; its mask is False.

    Raises:
        ValueError: If the ranks do not divide the batch, or no document has two tokens.
    """

    def __init__(
        self,
        documents: TokenDocuments,
        *,
        batch_size: int,
        seq_len: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        fill: int | None = None,
    ) -> None:
        self.documents, self.seq_len = documents, seq_len
        self.fill = documents.eos_id if fill is None else fill
        self._mine = rank_slice(batch_size, rank, world_size)
        self._lanes = CarriedLanes(documents.lengths, lanes=batch_size, stride=seq_len, seed=seed)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        document, offset = self._lanes.document[self._mine], self._lanes.offset[self._mine]
        rows = [self._row(int(d), int(o)) for d, o in zip(document, offset, strict=True)]
        self._lanes.advance()
        return _stack(rows, fresh=offset == 0)

    def state_dict(self) -> dict[str, Any]:
        """Return where every stream of every rank stands."""
        return {"kind": "carried", **self._lanes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put every stream where it stood.

        Raises:
            ValueError: If the position is of another kind of source, or of another number of streams.
        """
        _check_kind(state, "carried")
        self._lanes.load_state_dict(state)

    def _row(self, document: int, offset: int) -> dict[str, np.ndarray]:
        begin, end = (int(i) for i in self.documents.offsets[document : document + 2])
        tokens = self.documents.slice(begin + offset, min(begin + offset + self.seq_len + 1, end))
        T, inputs, count = self.seq_len, tokens[: self.seq_len], len(tokens) - 1
        row = {
            "input_ids": np.full(T, self.fill), "targets": np.full(T, IGNORED),
            "weights": np.zeros(T, np.float32), "mask": np.zeros(T, bool), "starts": np.zeros(T, bool),
        }  # fmt: skip
        row["input_ids"][: len(inputs)] = inputs
        row["targets"][:count] = tokens[1:]
        row["weights"][:count] = 1
        row["mask"][: len(inputs)] = True
        row["starts"][0] = offset == 0
        return row


def collate(sequences: list[TokenSequence]) -> Batch:
    """Stack independent sequences of one length."""
    return _stack([_as_row(s) for s in sequences], fresh=np.ones(len(sequences), bool))


def rank_slice(batch_size: int, rank: int, world_size: int) -> range:
    """Return which of the `batch_size` rows of a step belong to `rank`.

    Raises:
        ValueError: If the ranks do not divide the batch, or there is no such rank.
    """
    problems = []
    if batch_size < 1 or world_size < 1 or batch_size % world_size:
        problems.append(f"world_size must divide batch_size, got {world_size} and {batch_size}")
    if not 0 <= rank < world_size:
        problems.append(f"rank must be in [0, world_size), got {rank} of {world_size}")
    if problems:
        raise ValueError("batches: " + "; ".join(problems))
    each = batch_size // world_size
    return range(rank * each, (rank + 1) * each)


def _as_row(sequence: TokenSequence) -> dict[str, np.ndarray]:
    inputs, targets = sequence.tokens[:-1], sequence.tokens[1:]
    T = len(inputs)
    weights = np.ones(T, np.float32) if sequence.weights is None else sequence.weights.astype(np.float32)
    starts = np.arange(T) == 0 if sequence.starts is None else sequence.starts
    return {
        "input_ids": inputs, "targets": np.where(weights > 0, targets, IGNORED),
        "weights": weights, "mask": np.ones(T, bool), "starts": starts,
    }  # fmt: skip


def _stack(rows: list[dict[str, np.ndarray]], *, fresh: np.ndarray) -> Batch:
    stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    return Batch(**stacked, fresh=torch.from_numpy(np.array(fresh)))


def _check_kind(state: Mapping[str, Any], kind: str) -> None:
    if state.get("kind") != kind:
        raise ValueError(
            f"batches: the position must be of a source of the kind {kind!r}, got {state.get('kind')!r}; "
            "resume with the recipe that made the checkpoint"
        )
