"""The rows that streams have written, over a base table that they share."""

import weakref
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


class RowStore:
    """Physical storage of S streams' written rows: edited in place, so never handed out (see Overlay)."""

    def __init__(
        self,
        *,
        base: Tensor | RemoteTable | None,
        index: Tensor,
        rows: Tensor,
        used: int,
        dtype: torch.dtype,
        borrowed: bool = False,
        sparse_grad: bool = False,
    ) -> None:
        self.base = base
        """Shared table [N, Dv], here or elsewhere; None stands for zeros."""
        self.index = index
        """Row of each cell, int32 [S, N]; -1 where the base still holds."""
        self.rows = rows
        """Rows [capacity, Dv], of which the first `used` may be in use; they may be narrower than `dtype`."""
        self.used = used
        self.dtype = dtype
        """What rows are handed out in and computed with."""
        self.borrowed = borrowed
        """Whether somebody else, such as an autograd graph, may still need these very tensors."""
        self.sparse_grad = sparse_grad
        """Whether a trained base table gets sparse gradients."""
        self.older: list[weakref.ref[Overlay]] = []
        """Older versions that find their way here by undoing writes."""

    @property
    def editable(self) -> bool:
        """Whether the tensors may be edited in place here and now."""
        frozen = self.rows.is_inference() and not torch.is_inference_mode_enabled()
        return not (self.borrowed or self.rows.requires_grad or frozen)

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
        index = torch.full((num_streams, num_slots), -1, dtype=torch.int32, device=like.device)
        rows = like.new_empty(0, like.shape[-1], dtype=row_dtype)
        return cls(base=base, index=index, rows=rows, used=0, dtype=like.dtype, sparse_grad=sparse_grad)

    def emptied(self) -> "RowStore":
        """Return the same tables with nothing written."""
        return self.replaced(torch.full_like(self.index, -1), self.rows[:0].clone())

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "rows": self.rows[: self.used].clone(), "older": []}

    def replaced(self, index: Tensor, rows: Tensor) -> "RowStore":
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
        return RowStore(
            base=base,
            index=index,
            rows=rows,
            used=self.used,
            dtype=self.dtype,
            borrowed=True,
            sparse_grad=self.sparse_grad,
        )

    def copy(self) -> "RowStore":
        """Return storage of its own with the same contents and no spare room."""
        return self.replaced(self.index.clone(), self.rows[: self.used].clone())

    def compacted(self) -> "RowStore":
        """Return the same contents without rows that no cell points to; differentiable in the rows."""
        live = self.index >= 0
        rows = self.rows.index_select(0, self.index[live].long())
        index = torch.full_like(self.index, -1)
        index[live] = torch.arange(rows.shape[0], dtype=torch.int32, device=index.device)
        return self.replaced(index, rows)

    def locate(self, cells: Cells) -> Int[Tensor, "*P"]:
        """Return the rows of `cells`, -1 for those never written."""
        return self.index.view(-1)[cells].long()

    def base_rows(self, cells: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Copy what the base table holds for `cells`."""
        if self.base is None:
            return self.rows.new_zeros(cells.shape[0], self.rows.shape[1], dtype=self.dtype)
        if isinstance(self.base, RemoteTable):
            return self.base.repeated_rows(cells % self.index.shape[1]).to(self.dtype)
        return F.embedding(cells % self.index.shape[1], self.base, sparse=self.sparse_grad).to(self.dtype)

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
        slots = cells % self.index.shape[1]
        if isinstance(self.base, RemoteTable):
            distinct, place = slots.unique(return_inverse=True)
            return gathered_sum(w, place, self.base.rows(distinct))
        return gathered_sum(w, slots, self.base)

    def claim(
        self, cells: Int[Tensor, " R"], *, fill: bool = True, before: int = 0
    ) -> tuple[Int[Tensor, " R"], Int[Tensor, " U"], Int[Tensor, " O"]]:
        """Give distinct cells a row of their own, with `fill` filled from the base where they had none.

        Waits for the device once.

        Returns:
            The rows, the cells that had none, and those of the rows that lie before row `before`.
        """
        row = self.locate(cells)
        missing = row < 0
        older = (row < before) & ~missing
        num_new, num_older = torch.stack((missing.sum(), older.sum())).tolist()
        old = row.index_select(0, _places_of(older, num_older))
        place = _places_of(missing, num_new)
        new = cells.index_select(0, place)
        if not num_new:
            return row, new, old
        first, last = self.used, self.used + num_new
        self._reserve(last)
        if fill:
            self._fill(self.rows[first:last], new)
        span = torch.arange(first, last, device=new.device)
        self.index.view(-1).index_copy_(0, new, span.to(torch.int32))
        self.used = last
        row.index_copy_(0, place, span)
        return row, new, old

    def _fill(self, rows: Float[Tensor, "U Dv"], cells: Int[Tensor, " U"]) -> None:
        if isinstance(self.base, Tensor) and not self.mixes_precisions:
            torch.index_select(self.base, 0, cells % self.index.shape[1], out=rows)
        else:
            rows.copy_(self.base_rows(cells))

    def copy_rows(self, row: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Copy some rows' present contents."""
        out = large_empty((row.shape[0], self.rows.shape[1]), self.rows)
        return torch.index_select(self.rows, 0, row, out=out)

    def _reserve(self, num_rows: int) -> None:
        capacity = self.rows.shape[0]
        if num_rows <= capacity:
            return
        # Rows that lost their cell to newer ones still count, so there can be more rows than cells.
        room = max(num_rows, min(self._growth * capacity, self.index.numel()))
        if self._growth * room > self.index.numel():
            room = max(num_rows, self.index.numel())  # the next step would be the last: take it now
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
