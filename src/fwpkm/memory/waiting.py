"""Tokens that wait for their chunk's end or for their lookahead target."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.memory.places import listed
from fwpkm.memory.tokens import Tokens


class Waiting:
    """For each of B streams the tokens since its present chunk began, as one immutable value.

    Appending without a graph goes in place behind the last token, as long as no other value took that
    place before (as Go's slices do); a fork that comes second gets a copy.
    """

    __slots__ = ("_ends", "_packed", "counts")

    def __init__(self, packed: Float[Tensor, "B capacity W"], counts: Sequence[int], ends: list[int]) -> None:
        self._packed = packed
        self._ends = ends
        self.counts = tuple(counts)
        """Waiting tokens of each stream."""

    @classmethod
    def empty(cls, num_streams: int, like: Tensor) -> "Waiting":
        """Return no tokens for `num_streams` streams; packed tokens are made like `like` [*, W]."""
        return cls(like.new_empty(num_streams, 0, like.shape[-1]), (0,) * num_streams, [0] * num_streams)

    @classmethod
    def of(cls, packed: Float[Tensor, "B n W"], counts: Sequence[int]) -> "Waiting":
        """Hold the first counts[b] of each stream's `packed` tokens; their storage is given away."""
        return cls(packed, counts, [packed.shape[1]] * packed.shape[0])

    def tokens(self, streams: Sequence[int], count: int) -> Float[Tensor, "K {count} W"]:
        """Return the `count` waiting tokens of each of `streams`."""
        if len(streams) == len(self.counts):
            return self._packed[:, :count]
        return self._packed[:, :count].index_select(0, listed(tuple(streams), self._packed.device))

    def append(self, new: Float[Tensor, "B n W"], num_new: Sequence[int], capacity: int) -> "Waiting":
        """Return the waiting tokens with num_new[b] of `new` behind them.

        Args:
            new: Tokens, each stream's valid ones first.
            num_new: How many of them are valid.
            capacity: Room to make when there is too little; more is made if needed.
        """
        counts = tuple(a + b for a, b in zip(self.counts, num_new, strict=True))
        packed, ends = self._packed, self._ends
        graph = torch.is_grad_enabled() and (packed.requires_grad or new.requires_grad)
        frozen = packed.is_inference() and not torch.is_inference_mode_enabled()
        fits = max(counts, default=0) <= packed.shape[1] and list(self.counts) == ends
        if graph or frozen or packed.requires_grad or not fits:
            packed = self._roomy(max(capacity, *counts))
            ends = list(self.counts)
        if len(set(self.counts)) == 1 and set(num_new) == {new.shape[1]}:
            packed[:, self.counts[0] : counts[0]] = new
        else:
            for b, (start, stop) in enumerate(zip(self.counts, counts, strict=True)):
                packed[b, start:stop] = new[b, : stop - start]
        ends[:] = counts
        return Waiting(packed, counts, ends)

    def append_tokens(self, new: Tokens, num_new: Sequence[int], capacity: int) -> "Waiting":
        """Append tokens that nobody packed yet; see `append`."""
        return self.append(new.pack(), num_new, capacity)

    def _roomy(self, capacity: int) -> Tensor:
        B, _, W = self._packed.shape
        packed = self._packed.new_zeros(B, capacity, W)
        held = min(max(self.counts, default=0), capacity)
        packed[:, :held] = self._packed[:, :held]
        return packed

    def replaced(self, streams: Sequence[int], packed: Float[Tensor, "K n W"]) -> "Waiting":
        """Return the waiting tokens with those of some streams exchanged for `packed`."""
        counts = list(self.counts)
        for b in streams:
            counts[b] = packed.shape[1]
        line = self._roomy(max(counts))[:, : max(counts)]
        line[:, : packed.shape[1]].index_copy_(0, listed(tuple(streams), line.device), packed.to(line.dtype))
        return Waiting.of(line, counts)

    def select(self, streams: Int[Tensor, " K"]) -> "Waiting":
        """Return the waiting tokens of `streams`, repeated or reordered as asked."""
        counts = [self.counts[b] for b in streams.tolist()]
        held = max(counts, default=0)
        return Waiting.of(self._packed[streams, :held], counts)

    def trimmed(self) -> "Waiting":
        """Return the same tokens in no more room than they need."""
        return Waiting.of(self.packed.clone(), self.counts)

    @classmethod
    def join(cls, lines: Sequence["Waiting"]) -> "Waiting":
        """Return the waiting tokens of all streams of `lines`, one after the other."""
        counts = [count for line in lines for count in line.counts]
        packed = [line.packed for line in lines]
        room = max(counts, default=0)
        return cls.of(torch.cat([F.pad(x, (0, 0, 0, room - x.shape[1])) for x in packed]), counts)

    def detach(self) -> "Waiting":
        """Cut the graph, keeping the numbers."""
        return Waiting(self._packed.detach(), self.counts, [-1] * len(self.counts))

    def to(self, device: torch.device | str) -> "Waiting":
        """Return the same tokens on `device`."""
        return Waiting(self._packed.to(device), self.counts, [-1] * len(self.counts))

    @property
    def packed(self) -> Float[Tensor, "B n W"]:
        """All streams' tokens, padded with whatever lies behind them to the longest."""
        return self._packed[:, : max(self.counts, default=0)]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tokens that wait."""
        return sum(self.counts) * self._packed.shape[-1] * self._packed.element_size()
