"""The steps between versions of a table: writes that wait to be carried out, and what takes writes out again."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.memory.store import Move, RowStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What turns the next newer version's index back into this one's; the rows themselves are all still there."""

    moves: tuple[Move, ...]

    def apply(self, index: Int[Tensor, "S N"]) -> None:
        """Take one version's moves back, the last first."""
        for move in reversed(self.moves):
            index.view(-1)[move.cells] = move.old.to(index.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A write that is carried out once somebody looks: most that end a training sequence never are."""

    old: RowStore
    cells: Tensor
    rows: Tensor
    written: Tensor
    graph: bool
    """Whether gradients were recorded when it was asked for: so they are when it is carried out."""
    detached: bool = False
    """Whether the graph was cut since."""

    def carry_out(self) -> RowStore:
        """Return the storage after the write."""
        # Whoever looks first may be in the midst of a checkpointed block, which will not look first again.
        kept = torch.autograd.graph.saved_tensors_hooks(_same, _same)
        with kept, torch.inference_mode(False), torch.set_grad_enabled(self.graph and not self.detached):
            new = self._written()
            new.borrowed |= self.detached  # the graph that was cut off still needs these rows
            wasteful = self.detached and 2 * int((new.index >= 0).sum()) < new.used
            return new.compacted() if wasteful or new.used > new.num_cells else new

    def _written(self) -> RowStore:
        old, rows = self.old, self.rows.to(self.old.rows.dtype)
        place = torch.arange(old.used, old.used + rows.shape[0], dtype=torch.int32, device=rows.device)
        place = torch.where(self.written, place, -1)
        # New rows come behind all old ones, so the maximum replaces an old place and keeps one not written.
        index = old.index.flatten().scatter_reduce(0, self.cells, place, "amax").view(old.index.shape)
        if old.used:
            rows = torch.cat((old.rows[: old.used], rows))
        new = old.replaced(index, rows)
        new.free = old.ownerless
        return new


def _same(x: Tensor) -> Tensor:
    return x


def limit_versions(store: RowStore) -> None:
    """Let the oldest versions of a table copy the storage, once the rows kept for them outweigh such a copy."""
    while store.older:
        kept = sum(older.dropped.shape[0] for older in store.older)
        if kept <= store.used - store.free.shape[0] - kept:
            return
        oldest = store.older[0].version()
        if oldest is None:
            return  # the next edit frees what it kept
        oldest.store  # noqa: B018 - takes storage of its own
