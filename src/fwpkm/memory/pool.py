"""Many idle memories in one allocation: states go in, states come out, and what forks share is kept once.

A state in use keeps its rows at hand with an index of all slots; an idle one needs neither. Parking it leaves
its written rows in a pool of rows, exact or narrowed, and a list of their slots.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.memory.overlay import Overlay
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.rows import RowPool
from fwpkm.memory.state import FwPKMState
from fwpkm.memory.store import RowStore
from fwpkm.state import State

S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Where a pool keeps one layer's rows."""

    rows: RowPool
    cells: Int[Tensor, " P"]
    ids: Int[Tensor, " P"]

    @property
    def num_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (self.cells, self.ids))


class Parked(Generic[S]):
    """A memory that lies idle in a pool; a value. Its rows are given free when nobody holds it any more."""

    def __init__(self, rest: S, tables: tuple[_Table, ...]) -> None:
        self._rest = rest
        self._tables = tables
        weakref.finalize(self, _drop, tables).atexit = False

    def restore(self) -> S:
        """Return the memory to go on with; this one stays parked, for others to come back to."""
        tables = iter(self._tables)
        return _map_memories(
            self._rest, lambda state: replace(state, table=_unpark(next(tables), state.table))
        )

    @property
    def num_rows(self) -> int:
        """Rows of all its tables, those that it shares with others included."""
        return sum(len(table.ids) for table in self._tables)

    @property
    def num_bytes(self) -> int:
        """Bytes besides the rows in the pool: their slots, sub-keys, waiting tokens, and other layers' states."""
        memories = list(iter_memories(self._rest))
        all_of_it = self._rest.num_bytes - sum(state.table.num_bytes for state in memories)
        return all_of_it + sum(table.num_bytes for table in self._tables)


@dataclass(slots=True, kw_only=True)
class MemoryPool:
    """Keeps the written rows of any number of idle memories in one growing allocation per row width.

    >>> pool = MemoryPool(rows="int8")
    >>> parked = pool.park(state)
    >>> state = parked.restore()
    """

    rows: RowFormat = "exact"
    """How rows are kept while they are idle; rows that did not change since keep what they were."""
    block_rows: int = 1 << 14
    """Rows by which the allocation grows."""
    _pools: dict[tuple[object, ...], RowPool] = field(default_factory=dict, init=False, repr=False)
    _empty: dict[tuple[object, ...], RowStore] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.block_rows < 1:
            raise ValueError(f"MemoryPool: block_rows must be at least 1, got block_rows={self.block_rows}")

    @torch.no_grad()
    def park(self, state: S, since: Parked[S] | None = None) -> Parked[S]:
        """Keep a memory's rows in the pool.

        Args:
            state: Of a layer, or of a whole model; without a graph.
            since: A memory in this pool that it came from: rows that are the same are kept once for both.

        Raises:
            ValueError: If a gradient flows through the state.
        """
        before: Iterator[_Table | None] = iter(()) if since is None else iter(since._tables)
        tables: list[_Table] = []

        def strip(memory: FwPKMState) -> FwPKMState:
            if memory.table.store.rows.requires_grad or memory.keys.requires_grad:
                raise ValueError("MemoryPool.park: the state must have no graph; use state.detach()")
            tables.append(self._park(memory.table, next(before, None)))
            return replace(memory, table=self._stand_in(memory.table), waiting=memory.waiting.trimmed())

        return Parked(_map_memories(state, strip), tuple(tables))

    @property
    def num_bytes(self) -> int:
        """Bytes of the rows of all parked memories, and of the empty places among them."""
        return sum(pool.num_bytes for pool in self._pools.values())

    @property
    def num_rows(self) -> int:
        """Rows in use; what several memories share counts once."""
        return sum(pool.num_rows for pool in self._pools.values())

    def _park(self, table: Overlay, before: _Table | None) -> _Table:
        cells, like = table.written(), table.store.rows
        rows, key = table.store.kept_rows(cells), (like.shape[1], like.dtype, like.device)
        if key not in self._pools:
            self._pools[key] = RowPool(like.shape[1], like, form=self.rows, block_rows=self.block_rows)
        pool = self._pools[key]
        ids = torch.full((len(cells),), -1)
        if before is not None and before.rows is pool:
            ids = _unchanged(before, cells, rows)
            pool.share(ids[ids >= 0])
        ids[ids < 0] = pool.put(rows[(ids < 0).to(rows.device)])
        small = torch.int32 if table.store.num_cells < 2**31 else torch.int64
        return _Table(rows=pool, cells=cells.to(small), ids=ids.to(torch.int32))

    def _stand_in(self, table: Overlay) -> Overlay:
        """Return an empty table for a parked state; all of one shape and base share it."""
        store = table.store
        key = (
            store.size,
            store.rows.shape[1],
            store.rows.dtype,
            store.dtype,
            id(store.base),
            store.sparse_grad,
        )
        if key not in self._empty:
            self._empty[key] = store.emptied()
        return Overlay(self._empty[key])


def iter_memories(value: object) -> Iterator[FwPKMState]:
    """Walk through the FwPKM memories in a state, first layer first."""
    found: list[FwPKMState] = []

    def note(state: FwPKMState) -> FwPKMState:
        found.append(state)
        return state

    _map_memories(value, note)
    return iter(found)


def _drop(tables: tuple[_Table, ...]) -> None:
    for table in tables:
        table.rows.drop(table.ids.long())


def _unpark(table: _Table, stand_in: Overlay) -> Overlay:
    store, rows = stand_in.store, table.rows.get(table.ids.long())
    index = store.index.clone()
    span = torch.arange(len(rows), dtype=torch.int32, device=index.device)
    index.view(-1)[table.cells.long()] = span
    return Overlay(store.replaced(index, rows))


def _unchanged(before: _Table, cells: Int[Tensor, " P"], rows: Tensor) -> Int[Tensor, " P"]:
    """Return the pool's numbers of rows that are what they were `before`, -1 for all others."""
    ids = torch.full((len(cells),), -1)
    if not len(before.cells):
        return ids
    old = before.cells.long()
    near = torch.searchsorted(old, cells).clamp_max(len(old) - 1)
    both = (old[near] == cells).nonzero().squeeze(1)
    own = before.ids.long()[near[both].to(before.ids.device)]
    same = (before.rows.get(own) == rows[both]).all(-1).cpu()
    ids[both.cpu()[same]] = own[same]
    return ids


def _map_memories(value: Any, fn: Callable[[FwPKMState], FwPKMState]) -> Any:
    """Apply `fn` to every FwPKM memory in a tree of states and tuples."""
    if isinstance(value, FwPKMState):
        return fn(value)
    if isinstance(value, tuple):
        return tuple(_map_memories(item, fn) for item in value)
    if isinstance(value, State):
        state: Any = value
        return replace(state, **{f.name: _map_memories(getattr(state, f.name), fn) for f in fields(state)})
    return value
