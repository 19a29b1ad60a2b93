"""What the recurrence takes in, per token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fwpkm.memory.places import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The same span of tokens of every stream."""

    q: Float[Tensor, "B L H Dk"]
    v: Float[Tensor, "B L Dv"]
    """Values before lookahead."""
    gate: Float[Tensor, "B L"] | None = None
    """Weight of each token's memory loss; None weighs all alike."""
    write_mask: Float[Tensor, "B L"] | None = None
    """0 where a token's pair has no loss; None where all have."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Tokens":
        """Apply `fn` to every field."""
        return Tokens(
            q=fn(self.q),
            v=fn(self.v),
            gate=None if self.gate is None else fn(self.gate),
            write_mask=None if self.write_mask is None else fn(self.write_mask),
        )

    def __getitem__(self, span: slice) -> "Tokens":
        return self.map(lambda x: x[:, span])

    def select(self, streams: Sequence[int]) -> "Tokens":
        """Return the tokens of some streams."""
        if len(streams) == self.num_streams:
            return self
        return self.map(lambda x: x.index_select(0, listed(tuple(streams), x.device)))

    def reorder(self, place: Int[Tensor, "B L"]) -> "Tokens":
        """Put each stream's token place[b, t] at t."""
        return self.map(lambda x: x[torch.arange(x.shape[0], device=x.device)[:, None], place])

    def after(self, held: "Tokens") -> "Tokens":
        """Put `held`, whose fields are all there, in front."""
        gate, mask = held.gate, held.write_mask
        assert gate is not None, "held tokens were packed"
        return Tokens(
            q=torch.cat((held.q, self.q), dim=1),
            v=torch.cat((held.v, self.v), dim=1),
            gate=None if self.gate is None else torch.cat((gate, self.gate), dim=1),
            write_mask=_join_masks(mask, self.write_mask, held.num_tokens, self.num_tokens),
        )

    @property
    def num_streams(self) -> int:
        """B."""
        return self.q.shape[0]

    @property
    def num_tokens(self) -> int:
        """L."""
        return self.q.shape[1]

    @property
    def fields(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Queries [B, L, H*Dk], values, gate and mask."""
        return self.q.flatten(2), self.v, self.gate, self.write_mask

    def pack(self) -> Float[Tensor, "B L W"]:
        """Join all fields, W = H*Dk + Dv + 2; a missing gate or mask becomes ones."""
        one = self.v.new_ones(()).expand(*self.v.shape[:2], 1)
        gate, mask = (one if x is None else x[..., None] for x in (self.gate, self.write_mask))
        return torch.cat((self.q.flatten(2), self.v, gate, mask), dim=-1)

    @classmethod
    def unpack(cls, packed: Float[Tensor, "B L W"], *, heads: int, key_dim: int) -> "Tokens":
        """Take `pack`'s result apart again; the mask is there even if it masks nothing."""
        Dq = heads * key_dim
        q, v, gate, mask = packed.split([Dq, packed.shape[-1] - Dq - 2, 1, 1], dim=-1)
        return cls(
            q=q.unflatten(-1, (heads, key_dim)),
            v=v,
            gate=gate.squeeze(-1),
            write_mask=mask.squeeze(-1),
        )

    def without_idle_mask(self) -> "Tokens":
        """Return the same tokens without a mask if it masks nothing. Waits for the device."""
        idle = self.write_mask is None or bool((self.write_mask == 1).all())
        return replace(self, write_mask=None) if idle else self


def stands_behind(mask: Bool[Tensor, "B T"]) -> bool:
    """Return whether all padding stands behind its stream's tokens. Waits for the device."""
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


def _join_masks(held: Tensor | None, new: Tensor | None, num_held: int, num_new: int) -> Tensor | None:
    some = held if new is None else new
    if some is None:
        return None
    held, new = (
        some.new_ones(some.shape[0], n) if x is None else x for x, n in ((held, num_held), (new, num_new))
    )
    return torch.cat((held, new), dim=1)
