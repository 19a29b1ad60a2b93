"""The steps between versions of a table: writes that wait to be carried out, and what takes writes out again."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fwpkm.memory.store import RowStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What turns the next newer version back into this one."""

    log: tuple[tuple[Tensor, Tensor], ...]  # (rows, their contents before), oldest first
    new_cells: Tensor
    used: int

    def apply(self, store: RowStore) -> None:
        """Take one version's writes out of `store`."""
        for row, contents in reversed(self.log):
            store.rows[row] = contents
        store.index.view(-1)[self.new_cells] = -1
        store.used = self.used

    @property
    def num_rows(self) -> int:
        """Rows kept."""
        return sum(row.shape[0] for row, _ in self.log)


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
            return new.compacted() if wasteful or new.used > new.index.numel() else new

    def _written(self) -> RowStore:
        old, rows = self.old, self.rows.to(self.old.rows.dtype)
        place = torch.arange(old.used, old.used + rows.shape[0], dtype=torch.int32, device=rows.device)
        place = torch.where(self.written, place, -1)
        # New rows come behind all old ones, so the maximum replaces an old place and keeps one not written.
        index = old.index.flatten().scatter_reduce(0, self.cells, place, "amax").view(old.index.shape)
        if old.used:
            rows = torch.cat((old.rows[: old.used], rows))
        return old.replaced(index, rows)


def _same(x: Tensor) -> Tensor:
    return x


def limit_undo(store: RowStore, newest: Any) -> None:
    """Let the oldest versions of a table copy the storage, once the rows kept for them outweigh such a copy."""
    alive = [v for ref in store.older if (v := ref()) is not None and v._undo is not None] + [newest]
    while alive and sum(v._undo.num_rows for v in alive if v._undo is not None) > store.used:
        alive.pop(0).store  # noqa: B018 - rebuilds, and forgets the way to its successor
    store.older = [weakref.ref(v) for v in alive]
