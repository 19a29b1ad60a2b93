"""What a FwPKM layer knows after some tokens of B streams: sub-keys, written rows, waiting tokens."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fwpkm.memory.journal import Source
from fwpkm.memory.overlay import Overlay
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.recurrence import FastWeights, scan_by_definition, scan_in_place, scan_with_graph
from fwpkm.memory.saving import SaveReport, load_state, save_state
from fwpkm.memory.tokens import Tokens
from fwpkm.memory.waiting import Waiting
from fwpkm.ops.addressing import address, key_squares
from fwpkm.ops.answer import answer_tokens, can_answer
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.schedule import count_written
from fwpkm.ops.core.weights import read_weights
from fwpkm.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class FwPKMState(State):
    """Fast weights of one layer after `tokens_seen` tokens of each stream; a value, never edited.

    Hand it to the layer with the next tokens, keep it to come back to, or give it to several continuations.
    """

    keys: Float[Tensor, "S 2 H n half"]
    """Sub-keys, per stream or (S = 1) shared by the batch."""
    key_squares: Float[Tensor, "S 2 H n"]
    """|K|^2 of every sub-key (fwpkm.ops.addressing.key_squares), so that decoding needs not add them up again."""
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

    @classmethod
    def fresh(
        cls,
        keys: Float[Tensor, "2 H n half"],
        values: Float[Tensor, "N Dv"] | None,
        options: CoreOptions,
        *,
        num_streams: int,
        value_dim: int,
        temperature: Float[Tensor, ""],
        shared: bool = False,
        sparse_grad: bool = False,
    ) -> "FwPKMState":
        """Return the memory of `num_streams` streams that have seen nothing yet.

        Args:
            keys: Sub-keys that every stream starts with.
            values: Base table under all streams' writes; None stands for zeros.
            options: The arithmetic.
            num_streams: B.
            value_dim: Dv.
            temperature: Divides slot scores before they become read weights.
            shared: One table for all streams, instead of one each.
            sparse_grad: Give a trained base table sparse gradients.
        """
        num_tables = 1 if shared else num_streams
        num_slots, query_width = keys.shape[2] ** 2, keys.shape[1] * keys.shape[3] * 2
        rows = keys.new_empty(0, value_dim)
        keys = keys.clone()  # trained or replaced keys change under states that share their memory
        return cls(
            keys=keys.expand(num_tables, *keys.shape),
            key_squares=key_squares(keys.detach(), options.score).expand(num_tables, *keys.shape[:-1]),
            table=Overlay.fresh(values, num_tables, num_slots, rows, sparse_grad=sparse_grad),
            waiting=Waiting.empty(num_streams, keys.new_empty(0, query_width + value_dim + 2)),
            tokens_seen=(0,) * num_streams,
            options=options,
            temperature=temperature,
        )

    @property
    def num_streams(self) -> int:
        """B, the token streams; they share one table where S is 1."""
        return len(self.tokens_seen)

    @property
    def is_shared(self) -> bool:
        """Whether several streams share one table."""
        return self.keys.shape[0] < self.num_streams

    def advance(
        self,
        q: Float[Tensor, "B T H Dk"],
        v: Float[Tensor, "B T Dv"],
        gate: Float[Tensor, "B T"] | None,
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        write_mask: Bool[Tensor, "B T"] | None = None,
        by_definition: bool = False,
    ) -> tuple[Float[Tensor, "B T Dv"], "FwPKMState"]:
        """Read for the next `T` tokens and write the chunks that they complete.

        Args:
            q: Queries.
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
        if self.frozen:
            v_hat = self._read(x)
            return v_hat if mask is None else torch.where(mask[..., None], v_hat, 0), self
        if not self.is_shared and mask is not None and not bool(mask.all()):
            return self._advance_padded(x, mask, by_definition)
        return self._advance(x, [x.num_tokens] * self.num_streams, by_definition)

    def check_fits(
        self, options: CoreOptions, *, num_streams: int, keys: Tensor, value_dim: int, shared: bool
    ) -> None:
        """Raise ValueError unless a layer with these options and initial `keys` can go on from this state."""
        problems = [
            f"{f.name} is {getattr(options, f.name)!r} in the layer and {getattr(self.options, f.name)!r} in the state"
            for f in fields(CoreOptions)
            if options is not self.options and getattr(options, f.name) != getattr(self.options, f.name)
        ]
        if self.num_streams != num_streams:
            problems.append(f"x has {num_streams} streams and the state {self.num_streams}")
        elif self.keys.shape[0] != (1 if shared else num_streams):
            problems.append(
                f"the layer's table is shared: {shared}, the state has {self.keys.shape[0]} tables"
            )
        for name, own, given in (
            ("shaped", tuple(keys.shape), tuple(self.keys.shape[1:])),
            ("of", keys.dtype, self.keys.dtype),
            ("on", keys.device, self.keys.device),
        ):
            if own != given:
                problems.append(f"sub-keys are {name} {own} in the layer and {given} in the state")
        width = self.table.store.rows.shape[1]
        if width != value_dim:
            problems.append(f"value_dim is {value_dim} in the layer and {width} in the state")
        if problems:
            raise ValueError(
                "FwPKM: the state must come from the same configuration; "
                + "; ".join(problems)
                + ". Pass state=None to start afresh."
            )

    def flush(self) -> "FwPKMState":
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

    def freeze(self) -> "FwPKMState":
        """Return this memory to read from only: however many tokens ask it, it stays what it is."""
        return replace(self, frozen=True)

    def thaw(self) -> "FwPKMState":
        """Return this memory to go on learning, from where it was frozen."""
        return replace(self, frozen=False)

    def with_journal(self) -> "FwPKMState":
        """Return this memory, of one stream that has seen nothing, keeping a journal of all it will write.

        See `fwpkm.memory.journal`. A journal is for inference, and is not saved with the memory.

        Raises:
            ValueError: If there are several streams, tokens were seen, or the options cannot be noted.
        """
        problems = []
        if self.tokens_seen != (0,):
            problems.append(f"it must be of one stream without tokens, got tokens_seen={self.tokens_seen}")
        if self.options.border != "moved":
            problems.append(f"border must be 'moved', got {self.options.border!r}")
        if self.options.needs_definition is not None:
            problems.append(
                f"{self.options.needs_definition} is carried out by the definition, which is not noted"
            )
        if problems:
            raise ValueError("FwPKMState.with_journal: " + "; ".join(problems))
        return replace(self, table=self.table.with_journal())

    def sources(self, q: Float[Tensor, "1 1 H Dk"], *, most: int = 10) -> list[Source]:
        """Name the tokens behind what a query would read now, those that contribute most first.

        Raises:
            ValueError: If no journal is kept.
        """
        if self.table.journal is None:
            raise ValueError("FwPKMState.sources: the memory keeps no journal; use with_journal()")
        score, slot, _ = address(
            q, self.keys, topk=self.options.topk, score=self.options.score, squares=self.key_squares
        )
        w = read_weights(score.reshape(1, -1), self.options.weights, self.temperature)
        return self.table.journal.sources(slot.flatten(), w.flatten(), most=most)

    def fork(self) -> "FwPKMState":
        """Return a state to continue independently. States are values, so this is `self`; it costs nothing."""
        return self

    def detach(self) -> "FwPKMState":
        """Cut the graph, keeping the numbers: truncated backpropagation at this point."""
        return replace(
            self,
            keys=self.keys.detach(),
            key_squares=self.key_squares.detach(),
            table=self.table.detach(),
            waiting=self.waiting.detach(),
            temperature=self.temperature.detach(),
        )

    def to(self, device: torch.device | str) -> "FwPKMState":
        """Return the same state on `device`, with a copy of the base table there."""
        base = self.table.store.base
        return replace(
            self,
            keys=self.keys.to(device),
            key_squares=self.key_squares.to(device),
            table=self.table.to(device, None if base is None else base.to(device)),
            waiting=self.waiting.to(device),
            temperature=self.temperature.to(device),
        )

    def select(self, streams: Int[Tensor, " K"]) -> "FwPKMState":
        """Return the states of `streams`, repeated or reordered as asked."""
        if self.is_shared:
            raise ValueError(
                "FwPKMState.select: streams that share one table cannot be taken apart; use table='stream'"
            )
        return replace(
            self,
            keys=self.keys[streams],
            key_squares=self.key_squares[streams],
            table=self.table.select(streams),
            waiting=self.waiting.select(streams),
            tokens_seen=tuple(self.tokens_seen[b] for b in streams.tolist()),
        )

    def save(
        self, path: str | os.PathLike[str], layer: nn.Module, *, rows: RowFormat = "exact"
    ) -> SaveReport:
        """Save this memory to one file, which is good for `layer` alone; see `fwpkm.memory.saving.save_state`."""
        return save_state(path, self, layer, rows=rows)

    @classmethod
    def load(cls, path: str | os.PathLike[str], layer: nn.Module) -> "FwPKMState":
        """Load what `save` saved, over the base table and on the device of `layer`, which must be the same layer.

        Raises:
            ValueError: If the file is damaged, or was made by another layer.
        """
        return load_state(path, cls, layer, classes=(cls, CoreOptions))[0]

    @property
    def num_bytes(self) -> int:
        """Bytes of keys, written rows with their index, and waiting tokens; the base table is the layer's."""
        keys = self.keys.numel() * self.keys.element_size()
        return keys + self.table.num_bytes + self.waiting.num_bytes

    def _advance_padded(self, x: Tokens, mask: Tensor, by_definition: bool) -> tuple[Tensor, "FwPKMState"]:
        place = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # real tokens first
        out, state = self._advance(x.reorder(place), mask.sum(1).tolist(), by_definition)
        back = place.argsort(dim=1)
        return torch.where(mask[..., None], out.take_along_dim(back[..., None], dim=1), 0), state

    def _advance(self, x: Tokens, num_new: Sequence[int], by_definition: bool) -> tuple[Tensor, "FwPKMState"]:
        """Go on by num_new[b] tokens, which come first in `x`; groups of equal streams go together."""
        pairs = list(zip(self.waiting.counts, num_new, self._answered, strict=True))
        scans = by_definition or torch.is_grad_enabled() or self.options.needs_definition is not None
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
            out = torch.zeros_like(x.v) if out is None else out
            out = out.index_put(_grid(streams, pair[1], out), v_hat)
        return torch.zeros_like(x.v) if out is None else out, state

    def _read_on(self, x: Tokens, num_new: Sequence[int]) -> tuple[Tensor, "FwPKMState"]:
        """Read for tokens that complete no chunk: nothing but the waiting line changes."""
        room = self.options.chunk_size + self.options.lookahead
        seen = tuple(a + b for a, b in zip(self.tokens_seen, num_new, strict=True))
        return self._read(x), replace(
            self, waiting=self.waiting.append(x.pack(), num_new, room), tokens_seen=seen
        )

    def _read(self, x: Tokens) -> Tensor:
        """Return what tokens retrieve from the table as it stands."""
        if can_answer(x.v):
            store = self.table.store
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

    def _scan(
        self, streams: Sequence[int], x: Tokens | None, *, by_definition: bool
    ) -> tuple[Tensor, "FwPKMState"]:
        """Go on by the tokens `x` of `streams`, which are alike; without tokens, flush."""
        held, flush = self.waiting.counts[streams[0]], x is None
        if held:
            H, half = self.keys.shape[-3], self.keys.shape[-1]
            waiting = Tokens.unpack(self.waiting.tokens(streams, held), heads=H, key_dim=2 * half)
            x = waiting.map(Tensor.clone) if x is None else x.after(waiting)
        assert x is not None, "a flush has waiting tokens"
        answered = self._answered[streams[0]]
        v_hat, weights = self._scan_form(by_definition)(
            x, self._weights(streams), self.options, _thawed(self.temperature), answered=answered, flush=flush
        )
        ahead = self.options.lookahead
        done = x.num_tokens - ahead if flush else count_written(x.num_tokens, self.options)
        rest = x[done:].map(Tensor.clone)
        return v_hat[:, held - answered :], self._moved_on(streams, weights, rest, x.num_tokens - held)

    def _scan_form(self, by_definition: bool) -> Callable[..., tuple[Tensor, FastWeights]]:
        if by_definition or self.options.needs_definition is not None:
            return scan_by_definition
        return scan_with_graph if torch.is_grad_enabled() else scan_in_place

    def _moved_on(
        self, streams: Sequence[int], weights: FastWeights, rest: Tokens, num_new: int
    ) -> "FwPKMState":
        keys, waiting, seen = weights.keys, rest.pack(), list(self.tokens_seen)
        for b in streams:
            seen[b] += num_new
        counts = [rest.num_tokens] * len(streams)
        line = Waiting.of(waiting, counts)
        if len(streams) < self.num_streams:
            keys = self.keys.index_copy(0, torch.tensor(streams, device=keys.device), keys)
            line = self.waiting.replaced(streams, waiting)
        squares = self.key_squares if keys is self.keys else key_squares(keys.detach(), self.options.score)
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
        keys = _thawed(self.keys)
        return FastWeights(keys=keys if whole else keys[list(streams)], table=self.table, streams=own)


def _thawed(x: Tensor) -> Tensor:
    """Return `x`, copied if it was made in inference mode and may now have to take part in a graph."""
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def _grid(streams: Sequence[int], count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Index the first `count` tokens of some streams."""
    return torch.tensor(streams, device=like.device)[:, None], torch.arange(count, device=like.device)
