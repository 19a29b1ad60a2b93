"""Padding, dealt with once: real tokens first and in order, so that layers never look around gaps."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from fwpkm.memory.tokens import stands_behind
from fwpkm.ops.compiling import uncompiled


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """How the tokens of a padded batch are reordered, and back."""

    order: Int[Tensor, "B T"] | None
    """Old place of the token at each new place: the real ones in order, then the padding; None: they are there."""
    mask: Bool[Tensor, "B T"]
    """False where a token is padding, in the old order."""
    lengths: Int[Tensor, " B"]
    """Real tokens of each stream."""

    def pack(self, x: Shaped[Tensor, "B T D"]) -> Shaped[Tensor, "B T D"]:
        """Move each stream's real tokens to its front, zeros behind them."""
        x = hide_padding(x, self.mask)
        return x if self.order is None else x.gather(1, self.order[..., None].expand_as(x))

    def unpack(self, x: Shaped[Tensor, "B T D"]) -> Shaped[Tensor, "B T D"]:
        """Move tokens back to where they came from, zeros where there was padding."""
        if self.order is not None:
            x = x.gather(1, self.order.argsort(dim=1)[..., None].expand_as(x))
        return hide_padding(x, self.mask)


def packing_of(mask: Bool[Tensor, "B T"] | None) -> Packing | None:
    """Plan the reordering, or return None if nothing is padding. Waits for the device if there is a mask."""
    return None if mask is None else _packing(mask)


@uncompiled  # what is padding decides what is done
def _packing(mask: Tensor) -> Packing | None:
    if bool(mask.all()):
        return None
    if stands_behind(mask):
        return Packing(order=None, mask=mask, lengths=mask.sum(1))
    order = (~mask).to(torch.int8).argsort(dim=1, stable=True)
    return Packing(order=order, mask=mask, lengths=mask.sum(1))


def hide_padding(x: Shaped[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None) -> Shaped[Tensor, "B T D"]:
    """Put zeros where `mask` is False, so that not even NaN padding gets anywhere."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0.0)
