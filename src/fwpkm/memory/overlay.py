"""A table as a value: S streams' written rows over a shared base, cheap to keep, to fork and to go on from.

Handles are immutable. Behind them the newest one owns the storage, which is extended in place: what it writes goes
to rows of its own, and the rows that it has no more stay for the older handles that do, until these are gone. An older
handle knows which rows those are, and takes storage of its own if it is ever used again (persistent arrays after
H. G. Baker, 1978). So a call costs the rows that it touches, whatever was written before, and no handle ever sees
the writes of another.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fwpkm.memory.journal import Journal, Write
from fwpkm.memory.remote import RemoteTable
from fwpkm.memory.store import Move, Older, RowStore
from fwpkm.memory.versions import Put, Undo, limit_versions
from fwpkm.ops.memory_scan import can_move, memory_scan_, memory_scan_moving_
from fwpkm.ops.put import put_rows


class Overlay:
    """The tables of S streams, each N slots of width Dv, as one immutable value."""

    __slots__ = ("__weakref__", "_newer", "_put", "_store", "_undo", "journal")

    def __init__(
        self, store: RowStore | None, journal: Journal | None = None, put: Put | None = None
    ) -> None:
        self._store: RowStore | None = store
        self._put = put
        self.journal = journal
        """Every write so far, if a journal is kept."""
        self._newer: Overlay | None = None
        self._undo: Undo | None = None

    def __reduce__(self) -> tuple[type["Overlay"], tuple[RowStore, Journal | None]]:
        """Pickle this version alone, not those that came after it."""
        return Overlay, (self.store, self.journal)

    @classmethod
    def fresh(
        cls,
        base: Tensor | RemoteTable | None,
        num_streams: int,
        num_slots: int,
        like: Tensor,
        *,
        row_dtype: torch.dtype | None = None,
        sparse_grad: bool = False,
    ) -> "Overlay":
        """Return tables that hold `base` [N, Dv] (None: zeros) and nothing else.

        Rows are handed out and computed with like `like`, and kept in `row_dtype`, if that is another: each is
        rounded as it is put away.
        """
        store = RowStore.empty(
            base, num_streams, num_slots, like, row_dtype=row_dtype, sparse_grad=sparse_grad
        )
        return cls(store)

    @property
    def store(self) -> RowStore:
        """This version's storage, to read from only; the next edit may take it over."""
        if self._store is None and self._put is not None:
            self._store, self._put = self._put.carry_out(), None
        if self._store is None:
            self._store = self._rebuild()
            self._newer = self._undo = None
        return self._store

    def _rebuild(self) -> RowStore:
        path: list[Overlay] = [self]
        while path[-1]._newer is not None:
            path.append(path[-1]._newer)
        store = path[-1].store
        index = store.index.clone()
        for version in reversed(path[:-1]):
            assert version._undo is not None, "a version without storage knows the way to its successor"
            version._undo.apply(index)
        return store.split(index, self)

    @property
    def untouched_base(self) -> Tensor | None:
        """The base table, while nothing is written over it and nothing is learned of it."""
        store, base = self.store, self.store.base
        if not isinstance(base, Tensor) or base.requires_grad or store.used or store.mixes_precisions:
            return None
        return base

    @property
    def base_is_here(self) -> bool:
        """Whether the base table is in this process, or all zeros."""
        return not isinstance(self.store.base, RemoteTable)

    def gather(self, cells: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Copy the contents of `cells` (stream * N + slot); differentiable in rows and base."""
        return self.store.gather(cells)

    def read(self, w: Float[Tensor, "M J"], cells: Int[Tensor, "M J"]) -> Float[Tensor, "M Dv"]:
        """Add up  sum_j w_j V[cell_j]."""
        return self.store.read(w, cells)

    def put(
        self, cells: Int[Tensor, " R"], rows: Float[Tensor, "R Dv"], written: Bool[Tensor, " R"]
    ) -> "Overlay":
        """Return tables in which cell cells[r] holds rows[r] where it was written; differentiable in `rows`."""
        self._refuse_journal("be written with a graph, or by the definition; use torch.no_grad()")
        old = self.store
        old.borrowed = True  # until the write is carried out, these tensors must stay as they are
        graph = torch.is_grad_enabled()
        return Overlay(None, put=Put(old=old, cells=cells, rows=rows, written=written, graph=graph))

    @contextmanager
    def editing(self, num_pairs: int) -> Iterator["OverlayEditor"]:
        """Write in place, for inference: the editor's `result` is the new version, this one stays what it is.

        Args:
            num_pairs: How many row writes to expect. Where copying the storage is little next to that,
                it is copied; otherwise this handle keeps the rows that are written elsewhere from now on.
        """
        store = self.store
        if store.used <= num_pairs // 8 or store.is_wasteful or not store.editable:
            yield OverlayEditor(store.copy(), self.journal)
            return
        store.begin_edit()
        editor = OverlayEditor(store, self.journal)
        try:
            yield editor
            dropped = torch.cat((store.free[:0], *(move.dropped for move in editor.moves)))
            store.older.append(Older(weakref.ref(self), dropped))
            self._undo, self._newer, self._store = Undo(moves=tuple(editor.moves)), editor.result, None
        except BaseException:
            editor.roll_back()
            store.older = [older for older in store.older if older.version() is not self]
            self._undo, self._newer, self._store = None, None, store
            raise
        limit_versions(store)

    def detach(self) -> "Overlay":
        """Cut the graph, keeping the numbers."""
        if self._put is not None and not self._put.old.rows.requires_grad:
            return Overlay(
                None, self.journal, replace(self._put, rows=self._put.rows.detach(), detached=True)
            )
        store = self.store
        new = store.moved(store.index, store.rows.detach(), store.base)
        return Overlay(new.compacted() if 2 * self.num_rows < store.used else new, self.journal)

    def to(self, device: torch.device | str, base: Tensor | RemoteTable | None) -> "Overlay":
        """Return the same tables on `device`, over `base`, which is the same base table there."""
        self._refuse_journal("be moved to another device")
        store = self.store
        return Overlay(store.moved(store.index.to(device), store.rows[: store.used].to(device), base))

    def select(self, streams: Int[Tensor, " K"]) -> "Overlay":
        """Return the tables of `streams`, repeated or reordered as asked."""
        self._refuse_journal("be part of a batch; fork the state instead")
        return Overlay(self.store.replaced(self.store.index[streams], self.store.rows).compacted())

    @classmethod
    def join(cls, tables: Sequence["Overlay"]) -> "Overlay":
        """Return the tables of all streams of `tables`, which are over one base, one after the other."""
        for table in tables:
            table._refuse_journal("be part of a batch")
        stores = [table.store if table.store.is_tidy else table.store.compacted() for table in tables]
        starts = torch.tensor([0] + [store.used for store in stores]).cumsum(0).tolist()
        shifted = [
            torch.where(store.index >= 0, store.index + start, -1)
            for store, start in zip(stores, starts[:-1], strict=True)
        ]
        rows = torch.cat([store.rows[: store.used] for store in stores])
        return cls(stores[0].replaced(torch.cat(shifted), rows))

    def with_journal(self) -> "Overlay":
        """Return the same table, whose writes are noted from now on."""
        return Overlay(self.store.copy(), Journal())

    def without_journal(self) -> "Overlay":
        """Return the same table, whose writes are not noted."""
        return self if self.journal is None else Overlay(self.store.copy())

    def _refuse_journal(self, what: str) -> None:
        if self.journal is not None:
            raise ValueError(f"FwPKMState: a memory that keeps a journal cannot {what}")

    def dense(self) -> Float[Tensor, "S N Dv"]:
        """Spell the tables out in full."""
        S, N = self.store.size
        cells = torch.arange(S * N, device=self.store.index.device)
        return self.gather(cells).view(S, N, -1)

    def written(self) -> Int[Tensor, " P"]:
        """List the cells (stream * N + slot) that were written."""
        return (self.store.index.view(-1) >= 0).nonzero().squeeze(1)

    @property
    def num_rows(self) -> int:
        """Cells that were written, of all streams."""
        return int((self.store.index >= 0).sum()) if self.store.used else 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the written rows and of the index to them; the base is shared and does not count.

        The storage has room beyond that: for as many rows as one call moved, and for growth.
        """
        store = self.store
        row_bytes = store.rows.shape[1] * store.rows.element_size()
        return self.num_rows * row_bytes + store.num_cells * torch.int32.itemsize


class OverlayEditor:
    """Access to one storage while its next version is being written."""

    def __init__(self, store: RowStore, journal: Journal | None = None) -> None:
        self.store = store
        self.result = Overlay(store, journal)
        self.moves: list[Move] = []
        """What was changed so far."""
        self._start = store.used, store.free

    def write(
        self,
        w: Float[Tensor, "M J"],
        cells: Int[Tensor, " R"],
        number: Int[Tensor, "M J"],
        write_w: Float[Tensor, "M J"],
        target: Float[Tensor, "M Dv"],
        *,
        tokens: Int[Tensor, " M"] | None = None,
    ) -> Float[Tensor, "M Dv"]:
        """Read for one chunk's tokens, then write their rows; returns what was read.

        Args:
            w: Read weights.
            cells: The distinct cells that the tokens address.
            number: Which of them each pair addresses.
            write_w: Step sizes.
            target: What the cells should have answered.
            tokens: Which tokens these are, for the journal; None: those that come next.
        """
        self.note(w, cells, number, write_w, target, tokens)
        count = [number.shape[0]]
        if self.store.mixes_precisions:
            return self.write_chunks(w, cells, number, write_w, target, count, count)
        self._claim(cells, fill=True)
        row = self.store.locate(cells)
        return memory_scan_(self.store.rows, row[number], w, write_w, target, count, count)

    def write_chunks(
        self,
        w: Float[Tensor, "M J"],
        cells: Int[Tensor, " R"],
        number: Int[Tensor, "M J"],
        write_w: Float[Tensor, "Tw J"],
        target: Float[Tensor, "Tt Dv"],
        reads: Sequence[int],
        writes: Sequence[int],
        written: Bool[Tensor, " R"] | None = None,
        aims: Int[Tensor, " Tw"] | None = None,
        answers: Int[Tensor, " Ta"] | None = None,
    ) -> Float[Tensor, "Ta Dv"]:
        """Read and write chunk after chunk on the distinct `cells`; `written` says which are written; None: all.

        `number` says which of them each pair addresses; for the others see `memory_scan`.
        """
        given = (number, w, write_w, target, reads, writes)
        base = self.store.base
        if (
            isinstance(base, RemoteTable)
            or self.store.mixes_precisions
            or not can_move(self.store.rows, base)
        ):
            return self._write_copy(cells, written, *given, aims, answers)
        before = self.store.locate(cells)
        self._claim(cells if written is None else cells[written])
        place = self.store.locate(cells)
        source = torch.where(before >= 0, -1 - before, cells % self.store.num_slots)
        idle = place < 0  # read from the base, and not written
        spare = self.store.allocate(int(idle.sum()))
        place[idle] = spare
        v_hat = memory_scan_moving_(self.store.rows, place, source, base, *given, aims, answers)
        self.store.release(spare)
        return v_hat

    def _write_copy(
        self,
        cells: Tensor,
        written: Tensor | None,
        number: Tensor,
        w: Tensor,
        write_w: Tensor,
        target: Tensor,
        reads: Sequence[int],
        writes: Sequence[int],
        aims: Tensor | None,
        answers: Tensor | None,
    ) -> Tensor:
        """Do the same on a copy of the cells, in the precision that they are computed in."""
        table = self.store.read(w.new_ones(cells.shape[0], 1), cells[:, None])
        aimed = target if aims is None else target.index_select(0, aims)
        v_hat = memory_scan_(table, number, w, write_w, aimed, reads, writes)
        which = torch.arange(cells.shape[0], device=cells.device)
        which = which if written is None else which[written]
        own = cells.index_select(0, which)
        self._claim(own)
        put_rows(self.store.rows, self.store.locate(own), table, which)
        return v_hat if answers is None else v_hat.index_select(0, answers)

    def _claim(self, cells: Int[Tensor, " R"], *, fill: bool = False) -> None:
        """Give distinct cells rows of their own in this edit, with `fill` filled with what they hold."""
        move = self.store.claim(cells)
        if fill:
            self.store.fill(move)
        self.moves.append(move)  # before anything is changed, so that it can be taken back
        self.store.settle(move)

    def note(
        self,
        w: Float[Tensor, "M J"],
        cells: Int[Tensor, " R"],
        number: Int[Tensor, "M J"],
        write_w: Float[Tensor, "M J"],
        target: Float[Tensor, "M Dv"],
        tokens: Int[Tensor, " M"] | None = None,
    ) -> None:
        """Put a write into the journal, if one is kept, before it is done; copies what many tokens share."""
        journal = self.result.journal
        if journal is None:
            return
        if tokens is None:
            tokens = torch.arange(journal.written, journal.written + len(w), device=w.device)
        write = Write(
            tokens=tokens,
            cells=cells.clone(),
            number=number.clone(),
            w=w.clone(),
            write_w=write_w.clone(),
            target=target.clone(),
            before=self.store.gather(cells),
            was_written=self.store.locate(cells) >= 0,
        )
        self.result.journal = journal.append(write)

    def roll_back(self) -> None:
        """Take this editor's writes out again, wherever they broke off."""
        Undo(moves=tuple(self.moves)).apply(self.store.index)
        self.store.used, self.store.free = self._start
