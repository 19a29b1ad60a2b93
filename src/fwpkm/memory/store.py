"""The rows that streams have written, over a base table that they share."""

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fwpkm.memory.remote import RemoteTable
from fwpkm.ops.answer import can_read, read_cells
from fwpkm.ops.blocks import large_empty
from fwpkm.ops.sparse import gathered_sum

if TYPE_CHECKING:
    from fwpkm.memory.overlay import Overlay

_FEW_ROWS = 256
"""Reads of fewer rows copy them first: that takes fewer operations, and decoding is bound by their number."""

Cells = Int[Tensor, "*P"]
"""Slots numbered through all streams: stream * N + slot."""


@dataclass(frozen=True, slots=True)
class Older:
    """An older version of a table, which finds its rows in a newer one's storage."""

    version: "weakref.ref[Overlay]"
    dropped: Int[Tensor, " R"]
    """Rows that it is the last version to have: they are free once it is gone."""


@dataclass(frozen=True, slots=True)
class Move:
    """What a claim changes: these cells get rows of their own instead of those that they had."""

    cells: Int[Tensor, " U"]
    old: Int[Tensor, " U"]
    """Rows before, -1 for none."""
    new: Int[Tensor, " U"]
    dropped: Int[Tensor, " O"]
    """Those of the rows before that there are."""


class RowStore:
    """Physical storage of S streams' written rows: edited in place, so never handed out (see Overlay)."""

    def __init__(
        self,
        *,
        base: Tensor | RemoteTable | None,
        index: Int[Tensor, "S N"] | tuple[int, int],
        rows: Tensor,
        used: int,
        dtype: torch.dtype,
        borrowed: bool = False,
        sparse_grad: bool = False,
    ) -> None:
        self.base = base
        """Shared table [N, Dv], here or elsewhere; None stands for zeros."""
        self._index = None if isinstance(index, tuple) else index
        self.size: tuple[int, ...] = tuple(index) if isinstance(index, tuple) else tuple(index.shape)
        """Streams and slots, (S, N)."""
        self.rows = rows
        """Rows [capacity, Dv], of which the first `used` may be in use; they may be narrower than `dtype`."""
        self.used = used
        self.dtype = dtype
        """What rows are handed out in and computed with."""
        self.borrowed = borrowed
        """Whether somebody else, such as an autograd graph, may still need these very tensors."""
        self.sparse_grad = sparse_grad
        """Whether a trained base table gets sparse gradients."""
        self.older: list[Older] = []
        """Older versions that find their rows here, the oldest first."""
        self.free: Tensor = torch.zeros(0, dtype=torch.int64, device=rows.device)
        """Rows among those used that no version has any more."""
        self._edit = 0
        self._made_in: Tensor | None = None

    @property
    def index(self) -> Int[Tensor, "S N"]:
        """Row of each cell, int32; -1 where the base still holds. Made when somebody looks: training seldom does."""
        if self._index is None:
            with torch.inference_mode(False):
                self._index = torch.full(self.size, -1, dtype=torch.int32, device=self.rows.device)
        return self._index

    @property
    def num_slots(self) -> int:
        """Slots of a stream, N."""
        return self.size[1]

    @property
    def num_cells(self) -> int:
        """Slots of all streams."""
        return self.size[0] * self.size[1]

    @property
    def editable(self) -> bool:
        """Whether the tensors may be edited in place here and now."""
        frozen = self.rows.is_inference() and not torch.is_inference_mode_enabled()
        return not (self.borrowed or self.rows.requires_grad or frozen)

    @property
    def is_wasteful(self) -> bool:
        """Whether most rows are nobody's: a long call has moved many, while its caller kept the version before."""
        return 2 * self.free.shape[0] > self.used

    @property
    def is_tidy(self) -> bool:
        """Whether all rows belong to cells, as far as is known."""
        return not (self.older or self.free.shape[0])

    @property
    def ownerless(self) -> Int[Tensor, " U"]:
        """Rows that no cell of this version has."""
        return torch.cat((self.free, *(older.dropped for older in self.older)))

    @classmethod
    def empty(
        cls,
        base: Tensor | RemoteTable | None,
        num_streams: int,
        num_slots: int,
        like: Tensor,
        *,
        row_dtype: torch.dtype | None = None,
        sparse_grad: bool = False,
    ) -> "RowStore":
        """Start with nothing written.

        Rows get the width, dtype and device of `like` [*, Dv]; they are kept in `row_dtype`, if that is another.
        """
        rows, size = like.new_empty(0, like.shape[-1], dtype=row_dtype), (num_streams, num_slots)
        return cls(base=base, index=size, rows=rows, used=0, dtype=like.dtype, sparse_grad=sparse_grad)

    def emptied(self) -> "RowStore":
        """Return the same tables with nothing written."""
        return self.replaced((self.size[0], self.size[1]), self.rows[:0].clone())

    def __getstate__(self) -> dict[str, object]:
        return {**self.copy().__dict__, "borrowed": self.borrowed}

    def replaced(self, index: Tensor | tuple[int, int], rows: Tensor) -> "RowStore":
        """Return other contents over the same base; rows that have a graph are never edited in place."""
        return RowStore(
            base=self.base,
            index=index,
            rows=rows,
            used=rows.shape[0],
            dtype=self.dtype,
            borrowed=rows.requires_grad,
            sparse_grad=self.sparse_grad,
        )

    def moved(self, index: Tensor, rows: Tensor, base: Tensor | RemoteTable | None) -> "RowStore":
        """Return the same contents held in tensors that may be this storage's own: neither edits them any more."""
        self.borrowed = True
        new = RowStore(
            base=base,
            index=index,
            rows=rows,
            used=self.used,
            dtype=self.dtype,
            borrowed=True,
            sparse_grad=self.sparse_grad,
        )
        new.free = self.ownerless.to(index.device)
        return new

    def copy(self) -> "RowStore":
        """Return storage of its own with the same contents and no spare room."""
        if not self.is_tidy:
            return self.compacted()
        if not self.used:
            return self.emptied()
        return self.replaced(self.index.clone(), self.rows[: self.used].clone())

    def split(self, index: Int[Tensor, "S N"], version: "Overlay") -> "RowStore":
        """Return storage of its own for an older version, and for those that are older still.

        Args:
            index: The version's rows here.
            version: One of `older`.
        """
        place = [older.version() for older in self.older].index(version)
        earlier, leaving = self.older[:place], self.older[: place + 1]
        new = self.replaced(index, self.rows[: self.used].clone()) if earlier else self._with_index(index)
        new.older = earlier
        if earlier:
            new.free = _unused((index[index >= 0], *(older.dropped for older in earlier)), self.used)
        self.older = self.older[place + 1 :]
        self.release(torch.cat([older.dropped for older in leaving]))
        return new

    def compacted(self) -> "RowStore":
        """Return the same contents without rows that no cell points to; differentiable in the rows."""
        return self._with_index(self.index)

    def _with_index(self, index: Int[Tensor, "S N"]) -> "RowStore":
        """Return storage of the rows alone that `index` points to, rows of this one, in their order here if it can be.

        Each cell gets a row of its own, also where several point to one.
        """
        live = index >= 0
        old = index[live].long()
        pointed = torch.zeros(self.used, dtype=torch.bool, device=index.device)
        pointed[old] = True
        kept, number = pointed.nonzero().squeeze(1), (pointed.cumsum(0) - 1)[old]
        if kept.shape[0] < old.shape[0]:
            kept, number = old, torch.arange(old.shape[0], device=old.device)
        if self.rows.requires_grad:
            rows = self.rows.index_select(0, kept)
        else:
            rows = large_empty((kept.shape[0], self.rows.shape[1]), self.rows)
            torch.index_select(self.rows.detach(), 0, kept, out=rows)
        new = torch.full_like(index, -1)
        new[live] = number.to(torch.int32)
        return self.replaced(new, rows)

    def locate(self, cells: Cells) -> Int[Tensor, "*P"]:
        """Return the rows of `cells`, -1 for those never written."""
        return self.index.view(-1)[cells].long()

    def base_rows(self, cells: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Copy what the base table holds for `cells`."""
        if self.base is None:
            return self.rows.new_zeros(cells.shape[0], self.rows.shape[1], dtype=self.dtype)
        if isinstance(self.base, RemoteTable):
            return self.base.repeated_rows(cells % self.num_slots).to(self.dtype)
        return F.embedding(cells % self.num_slots, self.base, sparse=self.sparse_grad).to(self.dtype)

    def gather(self, cells: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Copy the present contents of `cells`, differentiable in rows and base."""
        if not self.used:
            return self.base_rows(cells)
        row = self.locate(cells)
        own = self.rows.index_select(0, row.clamp_min(0)).to(self.dtype)
        return torch.where((row >= 0)[:, None], own, self.base_rows(cells))

    def kept_rows(self, cells: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Copy the rows of `cells`, all of which were written, in the precision that they are kept in."""
        return self.rows.index_select(0, self.locate(cells))

    def read(self, w: Float[Tensor, "M J"], cells: Int[Tensor, "M J"]) -> Float[Tensor, "M Dv"]:
        """Add up  sum_j w_j V[cell_j]."""
        if can_read(w) and not isinstance(self.base, RemoteTable):
            return read_cells(w, cells, self.base, self.index, self.rows)
        if self.mixes_precisions or (self.used and w.numel() <= _FEW_ROWS):
            rows = self.gather(cells.flatten()).view(*w.shape, self.rows.shape[1])
            return torch.bmm(w[:, None], rows).squeeze(1)
        if not self.used:
            return self._read_base(w, cells)
        row = self.locate(cells)
        if row.device.type == "cpu" and bool((row >= 0).all()):
            return gathered_sum(
                w, row, self.rows
            )  # a table of which most is written costs what a dense one does
        # Zero times another stream's NaN is NaN, so a cell without a row looks at one of its own token's rows.
        near = torch.where(row >= 0, row, row.amax(-1, keepdim=True).clamp_min(0))
        own = gathered_sum(torch.where(row >= 0, w, 0), near, self.rows)
        own = torch.where((row >= 0).any(-1, keepdim=True), own, 0)
        return own if self.base is None else own + self._read_base(torch.where(row < 0, w, 0), cells)

    @property
    def mixes_precisions(self) -> bool:
        """Whether anything is kept in another precision than it is computed with."""
        base = self.base.dtype if isinstance(self.base, Tensor) else self.dtype
        return not self.dtype == self.rows.dtype == base

    def _read_base(self, w: Tensor, cells: Tensor) -> Tensor:
        if self.base is None:
            return self.rows.new_zeros(w.shape[0], self.rows.shape[1])
        slots = cells % self.num_slots
        if isinstance(self.base, RemoteTable):
            distinct, place = slots.unique(return_inverse=True)
            return gathered_sum(w, place, self.base.rows(distinct))
        return gathered_sum(w, slots, self.base)

    def begin_edit(self) -> None:
        """Leave all rows that there are to older versions, except those that only dead ones had: they are free."""
        gone = [older.dropped for older in self.older if older.version() is None]
        if gone:
            self.older = [older for older in self.older if older.version() is not None]
            self.release(torch.cat(gone))
        self._edit += 1

    def claim(self, cells: Int[Tensor, " R"]) -> Move:
        """Find rows for those of distinct cells that have none of this edit's own yet; see `settle`.

        Waits for the device once.
        """
        row = self.locate(cells)
        has_row = row >= 0
        moves = ~has_row | (self._made[row] != self._edit)
        num_moves, num_dropped = torch.stack((moves.sum(), (moves & has_row).sum())).tolist()
        which = _places_of(moves, num_moves)
        old = row.index_select(0, which)
        dropped = old.index_select(0, _places_of(old >= 0, num_dropped))
        new = self.allocate(num_moves)
        return Move(cells=cells.index_select(0, which), old=old, new=new, dropped=dropped)

    def fill(self, move: Move) -> None:
        """Put what the cells hold now into the rows that they are to have."""
        if not move.new.numel():
            return
        one = self.rows.new_ones(len(move.cells), 1, dtype=self.dtype)
        held = self.read(one, move.cells[:, None]) if can_read(one) else self.gather(move.cells)
        self.rows.index_copy_(0, move.new, held.to(self.rows.dtype))

    def settle(self, move: Move) -> None:
        """Let the cells have their new rows."""
        self._made.index_fill_(0, move.new, self._edit)
        self.index.view(-1).index_copy_(0, move.cells, move.new.to(torch.int32))

    @property
    def _made(self) -> Int[Tensor, " capacity"]:
        """Which edit each row was made in; what a storage begins with belongs to edit 0, its first."""
        size, made = max(1, self.rows.shape[0]), self._made_in
        if made is None or made.shape[0] < size:
            with torch.inference_mode(False):
                new = torch.zeros(size, dtype=torch.int32, device=self.rows.device)
                if made is not None:
                    new[: made.shape[0]] = made
            self._made_in = made = new
        return made

    def release(self, rows: Int[Tensor, " R"]) -> None:
        """Let others have rows that no cell has."""
        self.free = torch.cat((self.free, rows))

    def allocate(self, count: int) -> Int[Tensor, " {count}"]:
        """Take rows that nobody has."""
        reused = min(count, self.free.shape[0])
        kept = self.free.shape[0] - reused
        first, last = self.used, self.used + count - reused
        self._reserve(last)
        rows = torch.cat((self.free[kept:], torch.arange(first, last, device=self.free.device)))
        self.free, self.used = self.free[:kept], last
        return rows

    def _reserve(self, num_rows: int) -> None:
        capacity = self.rows.shape[0]
        if num_rows <= capacity:
            return
        # Older versions keep rows of their own, so there can be more rows than cells.
        most = max(num_rows, self.num_cells) * 9 // 8
        room = max(num_rows, min(self._growth * capacity, most))
        if self._growth * room > most:
            room = most  # the next step would be the last: take it now
        rows = large_empty((room, self.rows.shape[1]), self.rows)
        rows[: self.used] = self.rows[: self.used]
        self.rows = rows

    @property
    def _growth(self) -> int:
        """Spare room costs a CPU nothing before it is touched, but copying what there is does."""
        return 8 if self.rows.device.type == "cpu" else 2


def _places_of(mask: Bool[Tensor, " P"], count: int) -> Int[Tensor, " {count}"]:
    """Return where `mask` holds, which it does `count` times, without waiting for the device to say so."""
    place = torch.arange(mask.shape[0], device=mask.device)
    rank = torch.where(mask, mask.cumsum(0) - 1, count)  # the others all go to a place behind the last
    return place.new_zeros(count + 1).scatter_(0, rank, place)[:count]


def _unused(parts: tuple[Tensor, ...], count: int) -> Int[Tensor, " U"]:
    """List which of `count` rows are in none of `parts`."""
    used = parts[0].new_zeros(count, dtype=torch.bool)
    for rows in parts:
        used[rows.long()] = True
    return (~used).nonzero().squeeze(1)
