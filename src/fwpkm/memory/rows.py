"""One allocation for the rows of many tables: equal rows of forks are kept once, and freed rows are used again."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.memory.quantise import PackedRows, RowFormat


class RowPool:
    """Rows of width Dv by number, counted by how many tables use them.

    It grows by blocks, so that growing copies nothing and at most one block stands empty. Edited in place:
    not a value, and not to be shared by threads.
    """

    def __init__(self, width: int, like: Tensor, *, form: RowFormat, block_rows: int) -> None:
        self.form = form
        self._blank = PackedRows.of(like.new_zeros(block_rows, width), form)
        self._dtype = like.dtype
        self._blocks: list[PackedRows] = []
        self._uses = torch.zeros(0, dtype=torch.int32)
        self._free = torch.zeros(0, dtype=torch.int64)

    @property
    def num_rows(self) -> int:
        """Rows in use."""
        return len(self._uses) - len(self._free)

    @property
    def num_bytes(self) -> int:
        """Bytes of all blocks, used or not, and of the bookkeeping."""
        book = 4 * len(self._uses) + 8 * len(self._free)
        return sum(block.num_bytes for block in self._blocks) + book

    def put(self, rows: Float[Tensor, "P Dv"]) -> Int[Tensor, " P"]:
        """Copy `rows` in, used once each; returns their numbers."""
        while len(self._free) < len(rows):
            self._grow()
        ids, self._free = self._free[: len(rows)], self._free[len(rows) :].clone()
        packed = PackedRows.of(rows, self.form)
        for block, places, own in self._by_block(ids):
            block.data[places] = packed.data[own]
            if block.scale is not None and packed.scale is not None:
                block.scale[places] = packed.scale[own]
        self._uses[ids] = 1
        return ids

    def get(self, ids: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Copy rows out."""
        rows = torch.empty(
            len(ids), self._blank.data.shape[1], dtype=self._dtype, device=self._blank.data.device
        )
        for block, places, own in self._by_block(ids):
            scale = None if block.scale is None else block.scale[places]
            rows[own] = PackedRows(data=block.data[places], scale=scale).unpack(self._dtype)
        return rows

    def share(self, ids: Int[Tensor, " P"]) -> None:
        """Count one more table that uses these rows."""
        self._uses[ids] += 1

    def drop(self, ids: Int[Tensor, " P"]) -> None:
        """Count one table less; what nobody uses is free again."""
        self._uses[ids] -= 1
        self._free = torch.cat((self._free, ids[self._uses[ids] == 0]))

    def _grow(self) -> None:
        start, blank = len(self._uses), self._blank
        scale = None if blank.scale is None else blank.scale.clone()
        self._blocks.append(PackedRows(data=blank.data.clone(), scale=scale))
        self._uses = torch.cat((self._uses, self._uses.new_zeros(len(blank.data))))
        self._free = torch.cat((self._free, torch.arange(start, len(self._uses))))

    def _by_block(self, ids: Tensor) -> list[tuple[PackedRows, Tensor, Tensor]]:
        """List the blocks that `ids` are in, their places there, and where they are in `ids`."""
        size, device = len(self._blank.data), self._blank.data.device
        number, place = ids // size, (ids % size).to(device)
        found = []
        for block in number.unique().tolist():
            own = (number == block).nonzero().squeeze(1).to(device)
            found.append((self._blocks[block], place[own], own))
        return found
