"""Who wrote a table's slots, and how much of it is still there."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.memory.journal import Journal, Write


@dataclass(frozen=True, slots=True, kw_only=True)
class Writers:
    """Every write of every slot, in the order of slots and then of tokens."""

    slot: Int[Tensor, " E"]
    """The slot that was written."""
    token: Int[Tensor, " E"]
    """The token that wrote it, counted through the stream."""
    step: Float[Tensor, " E"]
    """The write weight  a = eta g w / R."""
    share: Float[Tensor, " E"]
    """How much of the token's target is in the slot now; see `Journal.writers`, whose sums these are."""

    @property
    def slots(self) -> Int[Tensor, " S"]:
        """List the written slots in ascending order."""
        return self.slot.unique()


def find_writers(journal: Journal, num_slots: int) -> Writers:
    """List the writes of one stream's table, on the CPU, each with the share that later writes have left of it."""
    parts: list[Writers] = []
    for write in journal:
        kept = _kept(write, num_slots)
        parts = [_faded(part, kept) for part in parts]
        parts.append(_pairs(write))
    return _ordered(parts)


def _kept(write: Write, num_slots: int) -> Float[Tensor, " N"]:
    """Return what one write leaves of every slot:  1 - sum_j a_j w_j ."""
    lost = write.w.new_zeros(len(write.cells))
    lost.index_add_(0, write.number.flatten(), (write.write_w * write.w).flatten())
    return write.w.new_ones(num_slots).index_copy_(0, write.cells, 1 - lost).cpu()


def _pairs(write: Write) -> Writers:
    step, slot = write.write_w.flatten().cpu(), write.cells[write.number.flatten()].cpu()
    token = write.tokens.repeat_interleave(write.number.shape[1]).cpu()
    return Writers(slot=slot, token=token, step=step, share=step)


def _faded(part: Writers, kept: Float[Tensor, " N"]) -> Writers:
    return Writers(slot=part.slot, token=part.token, step=part.step, share=part.share * kept[part.slot])


def _ordered(parts: list[Writers]) -> Writers:
    if not parts:
        none = torch.zeros(0, dtype=torch.int64)
        return Writers(slot=none, token=none, step=torch.zeros(0), share=torch.zeros(0))
    slot, token, step, share = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("slot", "token", "step", "share")
    )
    order = token.argsort(stable=True)
    order = order[slot[order].argsort(stable=True)]
    return Writers(slot=slot[order], token=token[order], step=step[order], share=share[order])
