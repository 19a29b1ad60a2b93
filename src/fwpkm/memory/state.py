"""What a FwPKM layer knows after some tokens of B streams: sub-keys, written rows, waiting tokens."""

import os
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fwpkm.memory.journal import Source
from fwpkm.memory.overlay import Overlay
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.recurrent import RecurrentState
from fwpkm.memory.remote import RemoteTable
from fwpkm.memory.saving import SaveReport, load_state, save_state
from fwpkm.memory.waiting import Waiting
from fwpkm.ops.addressing import address, key_squares
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.weights import read_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class FwPKMState(RecurrentState):
    """Fast weights of one layer after `tokens_seen` tokens of each stream; a value, never edited.

    Hand it to the layer with the next tokens, keep it to come back to, or give it to several continuations.
    """

    @classmethod
    def fresh(
        cls,
        keys: Float[Tensor, "2 H n half"],
        values: Float[Tensor, "N Dv"] | RemoteTable | None,
        options: CoreOptions,
        *,
        num_streams: int,
        value_dim: int,
        temperature: Float[Tensor, ""],
        shared: bool = False,
        row_dtype: torch.dtype | None = None,
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
            row_dtype: What written rows are kept in; None keeps them as they are computed.
            sparse_grad: Give a trained base table sparse gradients.
        """
        num_tables = 1 if shared else num_streams
        num_slots, query_width = keys.shape[2] ** 2, keys.shape[1] * keys.shape[3] * 2
        like = keys.new_empty(0, value_dim)
        keys = keys.clone()  # trained or replaced keys change under states that share their memory
        return cls(
            keys=keys.expand(num_tables, *keys.shape),
            key_squares=key_squares(keys.detach(), options.score).expand(num_tables, *keys.shape[:-1]),
            table=Overlay.fresh(
                values, num_tables, num_slots, like, row_dtype=row_dtype, sparse_grad=sparse_grad
            ),
            waiting=Waiting.empty(num_streams, keys.new_empty(0, query_width + value_dim + 2)),
            tokens_seen=(0,) * num_streams,
            options=options,
            temperature=temperature,
        )

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

    def without_journal(self) -> "FwPKMState":
        """Return this memory to go on without a journal, which what it has learned does not need."""
        return replace(self, table=self.table.without_journal())

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
            table=self.table.to(device, base.to(device) if isinstance(base, Tensor) else base),
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
