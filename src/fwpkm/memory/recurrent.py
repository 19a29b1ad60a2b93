"""What a FwPKM memory holds, and how tokens move it on: reads at once, writes chunk by chunk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fwpkm.memory.overlay import Overlay
from fwpkm.memory.places import listed
from fwpkm.memory.recurrence import scan_by_definition, scan_in_place, scan_with_graph
from fwpkm.memory.remote import RemoteTable
from fwpkm.memory.tokens import Tokens, stands_behind
from fwpkm.memory.waiting import Waiting
from fwpkm.memory.windows import FastWeights
from fwpkm.ops.addressing import address, key_squares
from fwpkm.ops.answer import answer_tokens, can_answer
from fwpkm.ops.backend import runs_triton
from fwpkm.ops.compiling import uncompiled
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.schedule import count_written
from fwpkm.ops.core.weights import read_weights
from fwpkm.state import State

R = TypeVar("R", bound="RecurrentState")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentState(State):
    """Fast weights and waiting tokens of B streams, which `advance` takes from token to token."""

    keys: Float[Tensor, "S 2 H n half"]
    """Sub-keys, per stream or (S = 1) shared by the batch."""
    key_squares: Float[Tensor, "S 2 H n"]
    """|K|^2 of every sub-key (fwpkm.ops.addressing.key_squares), so that nobody needs to add them up again:
    whoever replaces keys replaces them too."""
    table: Overlay
    """Tables, per stream or shared: written rows over the layer's base table."""
    waiting: Waiting
    """Queries, values, gates and masks since each stream's present chunk began."""
    tokens_seen: tuple[int, ...]
    """Tokens of each of the B streams, padding not counted."""
    options: CoreOptions
    """The arithmetic that made this state and continues it."""
    temperature: Float[Tensor, ""]
    """Divides slot scores before they become read weights."""
    frozen: bool = False
    """Whether tokens only read: nothing is written, nothing waits, and none is counted."""

    @property
    def num_streams(self) -> int:
        """B, the token streams; they share one table where S is 1."""
        return len(self.tokens_seen)

    @property
    def is_shared(self) -> bool:
        """Whether several streams share one table."""
        return self.keys.shape[0] < self.num_streams

    @uncompiled
    def advance(
        self: R,
        q: Float[Tensor, "B T H Dk"],
        v: Float[Tensor, "B T Dv"],
        gate: Float[Tensor, "B T"] | None,
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        write_mask: Bool[Tensor, "B T"] | None = None,
        by_definition: bool = False,
    ) -> tuple[Float[Tensor, "B T Dv"], R]:
        """Read for the next `T` tokens and write the chunks that they complete.

        Args:
            q: Queries. Like `v` and `gate` they may be narrower than the memory, in whose precision all is computed.
            v: Values before lookahead.
            gate: Weight of each token's memory loss; None weighs all alike.
            mask: False for padding, which neither reads nor writes nor counts as time. Where streams share
                a table, padding does pass time, and only has no loss (authors' release, D7).
            write_mask: False for tokens that read as any other but whose pair has no loss.
            by_definition: Use the literal, dense, slow form.

        Returns:
            Retrieved values v^ (zeros for padding), and the state after these tokens.
        """
        if mask is not None and self.is_shared:
            write_mask = mask if write_mask is None else mask & write_mask
        x = Tokens(q=q, v=v, gate=gate, write_mask=None if write_mask is None else write_mask.to(v.dtype))
        by_definition = by_definition or self.options.needs_definition is not None
        if by_definition or not runs_triton(v):  # which widens what it reads; others want tensors alike
            x = x.map(self._widened)
        if self.frozen:
            v_hat = self._read(x)
            return v_hat if mask is None else torch.where(mask[..., None], v_hat, 0), self
        if not self.is_shared and mask is not None and not bool(mask.all()):
            return self._advance_padded(x, mask, by_definition)
        return self._advance(x, [x.num_tokens] * self.num_streams, by_definition)

    def _widened(self, x: Tensor) -> Tensor:
        """Bring `x` to the memory's precision; a wider one stays what it is, and is refused."""
        return x.to(torch.promote_types(x.dtype, self.keys.dtype))

    def flush(self: R) -> R:
        """Write the waiting tokens whose targets are known, without waiting for their chunk to fill.

        Afterwards the next chunk begins with the `lookahead` tokens that still wait for theirs. Use it at a
        document's end, so that the very next question can be answered from all of it.
        """
        state = self
        if self.frozen:
            return self
        alike = list(zip(self.waiting.counts, self._answered, strict=True))
        for pair in sorted(set(alike)):
            if pair[0] > self.options.lookahead and self.options.border == "moved":
                streams = [b for b, other in enumerate(alike) if other == pair]
                _, state = state._scan(streams, None, by_definition=False)
        return state

    def _advance_padded(self: R, x: Tokens, mask: Tensor, by_definition: bool) -> tuple[Tensor, R]:
        counts = mask.sum(1).tolist()
        if stands_behind(mask):
            out, state = self._advance(x, counts, by_definition)
        else:
            place = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # real tokens first
            out, state = self._advance(x.reorder(place), counts, by_definition)
            out = out.take_along_dim(place.argsort(dim=1)[..., None], dim=1)
        return torch.where(mask[..., None], out, 0), state

    def _advance(self: R, x: Tokens, num_new: Sequence[int], by_definition: bool) -> tuple[Tensor, R]:
        """Go on by num_new[b] tokens, which come first in `x`; groups of equal streams go together."""
        pairs = list(zip(self.waiting.counts, num_new, self._answered, strict=True))
        scans = by_definition or torch.is_grad_enabled()
        if not scans and all(count_written(held + new, self.options) == 0 for held, new, _ in pairs):
            return self._read_on(x, num_new)
        out, state = None, self
        for pair in sorted(set(pairs)):
            if not pair[1]:
                continue
            streams = [b for b, other in enumerate(pairs) if other == pair]
            v_hat, state = state._scan(streams, x.select(streams)[: pair[1]], by_definition=by_definition)
            if pair[1] == x.num_tokens and len(streams) == len(pairs):
                return v_hat, state
            out = torch.zeros_like(x.v, dtype=v_hat.dtype) if out is None else out
            out = out.index_put(_grid(streams, pair[1], out), v_hat)
        return torch.zeros_like(x.v, dtype=self.keys.dtype) if out is None else out, state

    def _read_on(self: R, x: Tokens, num_new: Sequence[int]) -> tuple[Tensor, R]:
        """Read for tokens that complete no chunk: nothing but the waiting line changes."""
        room = self.options.chunk_size + self.options.lookahead
        seen = tuple(a + b for a, b in zip(self.tokens_seen, num_new, strict=True))
        line = self.waiting.append_tokens(x, num_new, room)
        return self._read(x), replace(self, waiting=line, tokens_seen=seen)

    def _read(self, x: Tokens) -> Tensor:
        """Return what tokens retrieve from the table as it stands."""
        store = self.table.store
        if can_answer(x.v) and not isinstance(store.base, RemoteTable):
            return answer_tokens(
                x.q,
                self.keys,
                self.key_squares,
                store.base,
                store.index,
                store.rows,
                self.temperature,
                self.options,
            )
        B, T, H, Dk = x.q.shape
        q = x.q.reshape(1, B * T, H, Dk) if self.is_shared else x.q
        score, slot, _ = address(
            q, self.keys, topk=self.options.topk, score=self.options.score, squares=self.key_squares
        )
        w = read_weights(score.reshape(B * T, H * self.options.topk), self.options.weights, self.temperature)
        cells = slot.reshape(B, w.numel() // max(B, 1)) + self._weights(range(B)).first_cells[:, None]
        if w.requires_grad:
            self.table.store.borrowed = True  # by the graph, which needs the rows as they are
        return self.table.read(w, cells.view(w.shape)).view(B, T, x.v.shape[-1])

    def _scan(self: R, streams: Sequence[int], x: Tokens | None, *, by_definition: bool) -> tuple[Tensor, R]:
        """Go on by the tokens `x` of `streams`, which are alike; without tokens, flush."""
        held, flush = self.waiting.counts[streams[0]], x is None
        if held:
            H, half = self.keys.shape[-3], self.keys.shape[-1]
            waiting = Tokens.unpack(self.waiting.tokens(streams, held), heads=H, key_dim=2 * half)
            if self.options.write_rule == "release":  # whose step size asks whether there is a mask at all
                waiting = waiting.without_idle_mask()
            x = waiting.map(Tensor.clone) if x is None else x.after(waiting)
        assert x is not None, "a flush has waiting tokens"
        answered = self._answered[streams[0]]
        v_hat, weights = self._scan_form(by_definition)(
            x, self._weights(streams), self.options, _thawed(self.temperature), answered=answered, flush=flush
        )
        ahead = self.options.lookahead
        done = x.num_tokens - ahead if flush else count_written(x.num_tokens, self.options)
        return v_hat[:, held - answered :], self._moved_on(streams, weights, x[done:], x.num_tokens - held)

    def _scan_form(self, by_definition: bool) -> Callable[..., tuple[Tensor, FastWeights]]:
        if by_definition or self.options.needs_definition is not None:
            return scan_by_definition
        return scan_with_graph if torch.is_grad_enabled() else scan_in_place

    def _moved_on(self: R, streams: Sequence[int], weights: FastWeights, rest: Tokens, num_new: int) -> R:
        keys, waiting, seen = weights.keys, self._widened(rest.pack()), list(self.tokens_seen)
        squares = weights.squares
        if squares is None:
            squares = key_squares(keys.detach(), self.options.score)
        for b in streams:
            seen[b] += num_new
        counts = [rest.num_tokens] * len(streams)
        line = Waiting.of(waiting, counts)
        if len(streams) < self.num_streams:
            own = listed(tuple(streams), keys.device)
            keys, squares = self.keys.index_copy(0, own, keys), self.key_squares.index_copy(0, own, squares)
            line = self.waiting.replaced(streams, waiting)
        return replace(
            self, keys=keys, key_squares=squares, table=weights.table, waiting=line, tokens_seen=tuple(seen)
        )

    @property
    def _answered(self) -> tuple[int, ...]:
        """Waiting tokens of each stream that were answered with the weights of an earlier chunk."""
        ahead = self.options.lookahead
        pairs = zip(self.tokens_seen, self.waiting.counts, strict=True)
        return tuple(min(ahead, held) if seen > held else 0 for seen, held in pairs)

    def _weights(self, streams: Sequence[int]) -> FastWeights:
        own = (0,) * len(streams) if self.is_shared else tuple(streams)
        whole = self.is_shared or len(streams) == self.num_streams
        keys, squares = _thawed(self.keys), _thawed(self.key_squares)
        if not whole:
            keys, squares = (x.index_select(0, listed(tuple(streams), x.device)) for x in (keys, squares))
        return FastWeights(keys=keys, table=self.table, streams=own, squares=squares)


def _thawed(x: Tensor) -> Tensor:
    """Return `x`, copied if it was made in inference mode and may now have to take part in a graph."""
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def _grid(streams: Sequence[int], count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Index the first `count` tokens of some streams."""
    return listed(tuple(streams), like.device)[:, None], torch.arange(count, device=like.device)
