"""Everything that a decoder knows after some tokens of B streams, as one value."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from fwpkm.layers.conv import ShortConvState
from fwpkm.layers.gated_delta_net import GatedDeltaNetState
from fwpkm.layers.kv import KVState
from fwpkm.layers.lact import LaCTState
from fwpkm.memory.fast_mlp import FastMLPState
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.memory.lact import LaCTMemory
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.saving import SaveReport, load_state, save_state
from fwpkm.memory.state import FwPKMState
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.fast_mlp import FastMLP, FastMLPOptions
from fwpkm.ops.lact import LaCTOptions, LaCTWeights
from fwpkm.state import State

MixerState = KVState | GatedDeltaNetState | LaCTState
MemoryState = FwPKMState | FastMLPState


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockState(State):
    """What one block carries from token to token."""

    mixer: MixerState
    """Attention's keys and values, the state of a recurrence, or LaCT's window and networks."""
    memory: MemoryState | None = None
    """The memory, if the block has one."""
    conv: ShortConvState | None = None
    """The tokens that the short convolution still sees, if the block has one."""

    def detach(self) -> "BlockState":
        """Cut the graph, keeping the numbers."""
        return self._map(lambda state: state.detach())

    def to(self, device: torch.device | str) -> "BlockState":
        """Return the same state on `device`; the original stays where it is."""
        return self._map(lambda state: state.to(device))

    def select(self, streams: Int[Tensor, " b"]) -> "BlockState":
        """Return the states of `streams`, repeated or reordered as asked."""
        return self._map(lambda state: state.select(streams))

    def flush(self) -> "BlockState":
        """Write the tokens that wait for their chunk to fill and whose targets are known."""
        return self._map(lambda state: state.flush() if hasattr(state, "flush") else state)

    def freeze(self) -> "BlockState":
        """Return the same with a memory that is only read; the token mixer goes on as ever."""
        return self if self.memory is None else replace(self, memory=self.memory.freeze())

    def thaw(self) -> "BlockState":
        """Return the same with a memory that learns again."""
        return self if self.memory is None else replace(self, memory=self.memory.thaw())

    @property
    def num_bytes(self) -> int:
        """Bytes of all parts, not counting what they share with the model."""
        return sum(state.num_bytes for state in self._parts().values())

    def _parts(self) -> dict[str, State]:
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: state for name, state in named if state is not None}

    def _map(self, fn: Callable[[Any], Any]) -> "BlockState":
        return replace(self, **{name: fn(state) for name, state in self._parts().items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderCache(State):
    """What B streams carry from token to token, block by block; a value, never edited.

    Hand it to the model with the next tokens, keep it to come back to, or give it to several
    continuations: none sees what another one writes.
    """

    blocks: tuple[BlockState, ...]
    """One state per block, first block first."""

    def detach(self) -> "DecoderCache":
        """Cut the graph, keeping the numbers: truncated backpropagation at this point."""
        return DecoderCache(blocks=tuple(block.detach() for block in self.blocks))

    def to(self, device: torch.device | str) -> "DecoderCache":
        """Return the same cache on `device`; the original stays where it is."""
        return DecoderCache(blocks=tuple(block.to(device) for block in self.blocks))

    def select(self, streams: Int[Tensor, " b"]) -> "DecoderCache":
        """Return the states of `streams`, repeated or reordered as asked (beam search)."""
        return DecoderCache(blocks=tuple(block.select(streams) for block in self.blocks))

    def fork(self, copies: int) -> "DecoderCache":
        """Repeat every stream `copies` times, copies of one stream next to each other.

        Raises:
            ValueError: If `copies` is below 1.
        """
        if copies < 1:
            raise ValueError(f"DecoderCache.fork: copies must be at least 1, got copies={copies}")
        streams = torch.arange(self.num_streams, device=self.tokens_seen.device)
        return self.select(streams.repeat_interleave(copies))

    def flush(self) -> "DecoderCache":
        """Let all memories write the tokens that wait for their chunk to fill and whose targets are known.

        Use it at a document's end, so that the very next question can be answered from all of it.
        """
        return DecoderCache(blocks=tuple(block.flush() for block in self.blocks))

    def freeze(self) -> "DecoderCache":
        """Return the same with memories that are only read; token mixers go on as ever."""
        return DecoderCache(blocks=tuple(block.freeze() for block in self.blocks))

    def thaw(self) -> "DecoderCache":
        """Return the same with memories that learn again, from where they were frozen."""
        return DecoderCache(blocks=tuple(block.thaw() for block in self.blocks))

    def with_journal(self) -> "DecoderCache":
        """Return the same, of one stream that has seen nothing, with FwPKM memories that note what they write."""

        def note(block: BlockState) -> BlockState:
            memory = block.memory
            return replace(block, memory=memory.with_journal()) if isinstance(memory, FwPKMState) else block

        return DecoderCache(blocks=tuple(note(block) for block in self.blocks))

    def without_journal(self) -> "DecoderCache":
        """Return the same with memories that go on without a journal, so that streams can be batched."""

        def plain(block: BlockState) -> BlockState:
            memory = block.memory
            return (
                replace(block, memory=memory.without_journal()) if isinstance(memory, FwPKMState) else block
            )

        return DecoderCache(blocks=tuple(plain(block) for block in self.blocks))

    def save(
        self,
        path: str | os.PathLike[str],
        model: nn.Module | Fingerprint,
        *,
        rows: RowFormat = "exact",
        extra: Mapping[str, Any] | None = None,
    ) -> SaveReport:
        """Save all layers' states to one file, which is good for `model` alone; see `save_state`."""
        return save_state(path, self, model, rows=rows, extra=extra)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], model: nn.Module, *, fingerprint: Fingerprint | None = None
    ) -> "DecoderCache":
        """Load what `save` saved, on the device of `model`, which must be the same model.

        Raises:
            ValueError: If the file is damaged, or was made by another model.
        """
        return load_state(path, cls, model, classes=CACHE_CLASSES, fingerprint=fingerprint)[0]

    @property
    def num_streams(self) -> int:
        """B."""
        return self.tokens_seen.shape[0]

    @property
    def tokens_seen(self) -> Int[Tensor, " B"]:
        """Tokens of each stream so far, padding not counted."""
        return self.blocks[0].mixer.tokens_seen

    @property
    def num_bytes(self) -> int:
        """Bytes of all states, not counting what they share with the model."""
        return sum(block.num_bytes for block in self.blocks)


CACHE_CLASSES = (
    DecoderCache,
    BlockState,
    KVState,
    GatedDeltaNetState,
    ShortConvState,
    FwPKMState,
    CoreOptions,
    FastMLPState,
    FastMLP,
    FastMLPOptions,
    LaCTState,
    LaCTMemory,
    LaCTWeights,
    LaCTOptions,
)
"""All that a cache is made of: what a memory file may build."""
