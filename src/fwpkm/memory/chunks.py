"""The bookkeeping of fast weights that every token reads and every chunk writes, whatever they are."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.memory.places import listed
from fwpkm.memory.waiting import Waiting
from fwpkm.ops.compiling import uncompiled
from fwpkm.ops.core.schedule import Chunking, count_written, plan_windows
from fwpkm.state import State, iter_tensors, map_tensors

Fast = TypeVar("Fast")
S = TypeVar("S", bound="ChunkedState")


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkedState(State, Generic[Fast]):
    """Fast weights after some tokens of B streams, and the tokens since each stream's present chunk began.

    A subclass says how a token reads and how a chunk writes; when they do is decided here.
    """

    fast: Fast
    """Fast weights: tensors with S in front, one entry per stream or (S = 1) one shared by the batch."""
    waiting: Waiting
    """What the writes still need of each stream's tokens."""
    tokens_seen: tuple[int, ...]
    """Tokens of each of the B streams, padding not counted where streams are separate."""
    frozen: bool = False
    """Whether tokens only read: nothing is written, nothing waits, and none is counted."""

    @property
    @abstractmethod
    def chunking(self) -> Chunking:
        """When the fast weights are written."""

    @abstractmethod
    def read(self, fast: Fast, q: Float[Tensor, "K t Dq"]) -> Float[Tensor, "K t Dv"]:
        """Return what tokens of K streams read; S is K or 1."""

    @abstractmethod
    def write(self, fast: Fast, tokens: Float[Tensor, "K m W"], num_written: int) -> Fast:
        """Return the fast weights after the write of the first `num_written` of a chunk's packed tokens.

        The others are there only for the lookahead.
        """

    @property
    def num_streams(self) -> int:
        """B, the token streams."""
        return len(self.tokens_seen)

    @property
    def is_shared(self) -> bool:
        """Whether several streams share one set of fast weights."""
        return next(iter_tensors(self.fast)).shape[0] < self.num_streams

    @uncompiled
    def advance(
        self: S, q: Float[Tensor, "B T Dq"], tokens: Float[Tensor, "B T W"], num_new: Sequence[int]
    ) -> tuple[Float[Tensor, "B T Dv"], S]:
        """Read for the next tokens and write the chunks that they complete.

        Args:
            q: What the tokens read with.
            tokens: What their writes will need, packed.
            num_new: Tokens of each stream, which come first in `q` and `tokens`; the rest is padding.

        Returns:
            What the tokens read (anything at padding), and the state after them.
        """
        if self.frozen:
            return self.read(self.fast, q), self
        held = self.waiting.counts
        pairs = list(zip(held, num_new, strict=True))
        if all(count_written(have + new, self.chunking) == 0 for have, new in pairs):
            room = self.chunking.chunk_size + self.chunking.lookahead
            line = self.waiting.append(tokens, num_new, room)
            return self.read(self.fast, q), replace(self, waiting=line, tokens_seen=self._seen(num_new))
        out, state = None, self
        for pair in sorted(set(pairs)):
            if not pair[1]:
                continue
            streams = [b for b, other in enumerate(pairs) if other == pair]
            own, new = (x[:, : pair[1]] for x in (q, tokens))
            if len(streams) < len(pairs):
                own, new = (x.index_select(0, listed(tuple(streams), x.device)) for x in (own, new))
            part, state = state._scan(streams, own, new)
            out = _placed(out, part, streams, q)
        assert out is not None, "some stream completes a chunk"
        return out, replace(state, tokens_seen=self._seen(num_new))

    def flush(self: S) -> S:
        """Write the waiting tokens whose targets are known, without waiting for their chunk to fill.

        Afterwards the next chunk begins with the `lookahead` tokens that still wait for theirs.
        """
        state, ahead = self, self.chunking.lookahead
        for held in sorted(set(self.waiting.counts)):
            if held > ahead and self.chunking.border == "moved" and not self.frozen:
                streams = [b for b, count in enumerate(self.waiting.counts) if count == held]
                packed = self.waiting.tokens(streams, held)
                fast = self.write(state._of(streams), packed, held - ahead)
                state = state._moved_on(streams, fast, packed[:, held - ahead :])
        return state

    def _scan(self: S, streams: list[int], q: Tensor, tokens: Tensor) -> tuple[Tensor, S]:
        """Go on by new tokens of `streams`, which have equally many waiting."""
        held, ahead = self.waiting.counts[streams[0]], self.chunking.lookahead
        packed = torch.cat((self.waiting.tokens(streams, held), tokens), dim=1) if held else tokens
        fast, out = self._of(streams), []
        for win in plan_windows(packed.shape[1], self.chunking):
            first = max(win.start + win.num_repeated, held)
            if first < win.stop:
                out.append(self.read(fast, q[:, first - held : win.stop - held]))
            if win.num_written:
                known = win.start + win.num_written + ahead
                fast = self.write(fast, packed[:, win.start : known], win.num_written)
        rest = packed[:, count_written(packed.shape[1], self.chunking) :]
        return torch.cat(out, dim=1), self._moved_on(streams, fast, rest)

    def _seen(self, num_new: Sequence[int]) -> tuple[int, ...]:
        return tuple(a + b for a, b in zip(self.tokens_seen, num_new, strict=True))

    def _of(self, streams: Sequence[int]) -> Fast:
        """Return the fast weights of some streams."""
        if self.is_shared or len(streams) == self.num_streams:
            return self.fast
        return map_tensors(self.fast, lambda x: x.index_select(0, listed(tuple(streams), x.device)))

    def _moved_on(self: S, streams: Sequence[int], fast: object, rest: Tensor) -> S:
        """Return the state with new fast weights and new waiting tokens of some streams."""
        rest = rest.clone()
        if len(streams) == self.num_streams:
            return replace(self, fast=fast, waiting=Waiting.of(rest, [rest.shape[1]] * len(streams)))
        new = iter_tensors(fast)

        def put(x: Tensor) -> Tensor:
            return x.index_copy(0, listed(tuple(streams), x.device), next(new))

        return replace(self, fast=map_tensors(self.fast, put), waiting=self.waiting.replaced(streams, rest))

    def freeze(self: S) -> S:
        """Return these fast weights to read from only: however many tokens ask them, they stay what they are."""
        return replace(self, frozen=True)

    def thaw(self: S) -> S:
        """Return these fast weights to go on learning, from where they were frozen."""
        return replace(self, frozen=False)

    def detach(self: S) -> S:
        """Cut the graph, keeping the numbers: truncated backpropagation at this point."""
        return replace(self, fast=map_tensors(self.fast, Tensor.detach), waiting=self.waiting.detach())

    def to(self: S, device: torch.device | str) -> S:
        """Return the same state on `device`; the original stays where it is."""
        return replace(
            self, fast=map_tensors(self.fast, lambda x: x.to(device)), waiting=self.waiting.to(device)
        )

    def select(self: S, streams: Int[Tensor, " K"]) -> S:
        """Return the states of `streams`, repeated or reordered as asked."""
        if self.is_shared:
            raise ValueError(
                f"{type(self).__name__}.select: streams that share fast weights cannot be taken apart; "
                "use scope='stream'"
            )
        return replace(
            self,
            fast=map_tensors(self.fast, lambda x: x[streams]),
            waiting=self.waiting.select(streams),
            tokens_seen=tuple(self.tokens_seen[b] for b in streams.tolist()),
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of the fast weights and of the waiting tokens."""
        return sum(x.numel() * x.element_size() for x in iter_tensors(self.fast)) + self.waiting.num_bytes


def _placed(out: Tensor | None, part: Tensor, streams: Sequence[int], q: Tensor) -> Tensor:
    """Put what some streams read, [K, t, Dv], in its place among all streams' [B, T, Dv]."""
    B, T, _ = q.shape
    if part.shape[:2] == (B, T):
        return part
    out = part.new_zeros(B, T, part.shape[-1]) if out is None else out
    b = listed(tuple(streams), part.device)[:, None]
    return out.index_put((b, torch.arange(part.shape[1], device=part.device)), part)
