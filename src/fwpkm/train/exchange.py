"""How rows of tables that several processes share get to those who ask for them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

_DONE = -1


@runtime_checkable
class Shelf(Protocol):
    """One table's rows as far as this process owns them."""

    @property
    def own_rows(self) -> Float[Tensor, "P Dv"]:
        """Every world-th row of the table, from this process's rank on."""


class RowExchange:
    """Rounds in which every process asks for rows, of whichever table, and hands out its own.

    Processes need different numbers of rounds: streams end at different tokens, and each group of streams that
    are alike is looked up by itself. So whoever has all that it needs goes on taking part, by `finish`, until all
    have; that must be called at the same places of the program by all, and lies at the end of every block.

    Args:
        rank: Of this process.
        world: How many there are. The row of slot s belongs to process  s % world .
    """

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self.shelves: list[Shelf] = []
        """All tables, in the same order on every process."""

    def add(self, shelf: Shelf) -> int:
        """Take a table in; returns its number.

        Raises:
            ValueError: If its rows have another dtype than those of the other tables.
        """
        kinds = {one.own_rows.dtype for one in (*self.shelves, shelf)}
        if len(kinds) > 1:
            raise ValueError(
                f"train.shard_tables: all tables must have one dtype, got {', '.join(sorted(map(str, kinds)))}; "
                "convert the model as a whole"
            )
        self.shelves.append(shelf)
        return len(self.shelves) - 1

    def fetch(self, number: int, slots: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Get the rows of slots of one table, in their order."""
        owner = slots % self.world
        order = owner.argsort(stable=True)
        wanted = torch.div(slots[order], self.world, rounding_mode="floor")
        rows = self._round(number, torch.bincount(owner, minlength=self.world), wanted)
        assert rows is not None, "the round had this process's request"
        return torch.empty_like(rows).index_copy_(0, order, rows)

    def finish(self) -> None:
        """Answer the others until nobody needs anything more."""
        if not self.shelves:
            return
        device = self.shelves[0].own_rows.device
        counts = torch.full((self.world,), _DONE, device=device)
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        while self._round(0, counts, nothing) is not None:
            pass

    def _round(self, number: int, counts: Tensor, wanted: Tensor) -> Tensor | None:
        """Take part in one round: ask each owner for counts[owner] rows; None if nobody asked for any."""
        asks = torch.stack((torch.full_like(counts, number), counts), dim=1)
        told = self._swap(asks, [1] * self.world, [1] * self.world).tolist()
        if all(count == _DONE for _, count in told):
            return None
        asked = [max(count, 0) for _, count in told]
        own = counts.clamp_min(0).tolist()
        places = self._swap(wanted, own, asked).split(asked)
        shelves = [self.shelves[table].own_rows.detach() for table, _ in told]
        found = [shelf.index_select(0, place).flatten() for shelf, place in zip(shelves, places, strict=True)]
        width = self.shelves[number].own_rows.shape[1]
        flat = self._swap(torch.cat(found), [x.numel() for x in found], [count * width for count in own])
        return flat.view(sum(own), width)

    def give(
        self, slots: Int[Tensor, " P"], contents: Float[Tensor, "P Dv"]
    ) -> tuple[Int[Tensor, " Q"], Float[Tensor, "Q Dv"]]:
        """Send rows to their owners; returns where among its own rows each one belongs that this process got.

        All must call it. What came from one process stands together, in the order of ranks.
        """
        owner = slots % self.world
        order = owner.argsort(stable=True)
        counts = torch.bincount(owner, minlength=self.world)
        sizes = [1] * self.world
        got = self._swap(counts, sizes, sizes).tolist()
        own = counts.tolist()
        places = self._swap(torch.div(slots[order], self.world, rounding_mode="floor"), own, got)
        return places, self._swap(contents[order], own, got)

    def _swap(self, x: Tensor, sizes: Sequence[int], others: Sequence[int]) -> Tensor:
        """Send sizes[r] entries of `x` to each process r; returns the others[r] entries that each one sent here."""
        out = x.new_empty(sum(others), *x.shape[1:])
        dist.all_to_all_single(out, x.contiguous(), list(others), list(sizes))
        return out
