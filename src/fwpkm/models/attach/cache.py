"""Memories in transformers' own caches: each layer of a cache takes the state of its memory along.

A cache layer is given a class of its own, as FSDP2 does with modules: it remains what it was, and whatever
happens to its keys and values (beams, resets, crops, copies) happens to the memory beside them.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache, CacheLayerMixin, EncoderDecoderCache, StaticLayer

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.memory.state import FwPKMState


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """One call of a memory, to do again up to an earlier token."""

    memory: FwPKM
    before: FwPKMState | None
    x: Float[Tensor, "B T D"]
    mask: Bool[Tensor, "B T"] | None

    def shortened(self, num_tokens: int) -> "_Call":
        """Return the same call on its first tokens only."""
        mask = None if self.mask is None else self.mask[:, :num_tokens]
        return replace(self, x=self.x[:, :num_tokens], mask=mask)

    @torch.no_grad()
    def repeat(self) -> FwPKMState:
        """Do it again."""
        return self.memory(self.x, self.before, self.mask)[1]


class MemorySlot:
    """Where the state of one layer's memory is kept between calls. States are values, so copies share them."""

    def __init__(self) -> None:
        self.state: FwPKMState | None = None
        """What the streams have seen so far; None is nothing."""
        self._calls: list[_Call] | None = None

    def advance(
        self,
        memory: FwPKM,
        x: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"] | None,
        *,
        recompute: bool = False,
    ) -> Float[Tensor, "B T D"]:
        """Let `memory` go on by the tokens `x`; `recompute` keeps no activations for the backward pass."""
        before = self.state
        if recompute:
            # The state is a value: computing it again in the backward pass writes nothing a second time.
            y, self.state = checkpoint(memory, x, before, mask, use_reentrant=False)
        else:
            y, self.state = memory(x, before, mask)
        if self._calls is not None:
            self._calls.append(_Call(memory=memory, before=before, x=x.detach(), mask=mask))
        return y

    def select(self, streams: Shaped[Tensor, " b"]) -> None:
        """Keep the memories of `streams`: their numbers, or True for each to keep."""
        if self.state is not None:
            numbers = streams.nonzero().flatten() if streams.dtype == torch.bool else streams
            self.state = self.state.select(numbers.to(self.state.keys.device))
        self._forget_calls()  # they were calls of other streams

    def repeat_interleave(self, repeats: int) -> None:
        """Repeat every stream's memory, copies next to each other."""
        if self.state is not None:
            self.select(torch.arange(self.state.num_streams).repeat_interleave(repeats))

    def reset(self) -> None:
        """Forget everything."""
        self.state = None
        self._forget_calls()

    def record(self) -> None:
        """Remember all calls from now on, so that `crop` can take them back."""
        self._calls = self._calls or []

    @property
    def is_recording(self) -> bool:
        """Whether `crop` can take back what comes."""
        return self._calls is not None

    def check_crop(self, number: int) -> None:
        """Raise RuntimeError if the last `number` tokens cannot be taken back."""
        if number > sum(call.x.shape[1] for call in self._calls or []):
            raise RuntimeError(
                f"fwpkm.attach: cannot take back {number} tokens, as writes to a memory are not undone unless they "
                "are recorded; call activate_past_recording() before reading them, or keep a copy.deepcopy(cache)"
            )

    def crop(self, number: int) -> None:
        """Go back by `number` recorded tokens, to the state before the last calls, and read again what stays."""
        self.check_crop(number)
        while number > 0:
            assert self._calls, "checked above"
            call = self._calls.pop()
            kept = call.x.shape[1] - number
            self.state = call.shortened(kept).repeat() if kept > 0 else call.before
            number = -kept
        self._forget_calls()

    def _forget_calls(self) -> None:
        if self._calls is not None:
            self._calls = []

    def __copy__(self) -> "MemorySlot":
        other = MemorySlot()
        other.state = self.state
        other._calls = None if self._calls is None else list(self._calls)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> "MemorySlot":
        return self.__copy__()  # what is shared is never edited

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the state; calls hold the model, and stay behind."""
        return {"state": self.state, "_calls": None if self._calls is None else []}


class RememberingLayer(CacheLayerMixin):
    """What is put before the class of a cache layer, so that it takes a memory along."""

    fwpkm_slot: MemorySlot

    @property
    def is_croppable(self) -> bool:  # type: ignore[override]
        """Whether `crop` leaves no trace."""
        return self.fwpkm_slot.is_recording and bool(super().is_croppable)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.fwpkm_slot.reset()

    def reorder_cache(self, beam_idx: Int[Tensor, " b"]) -> None:
        """Let beams go on from those of others."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self.fwpkm_slot.select(beam_idx)

    def crop(self, tokens_to_remove: int) -> None:
        """Go back by -tokens_to_remove tokens."""
        super().crop(tokens_to_remove)  # type: ignore[misc]
        self.fwpkm_slot.crop(-tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every stream, copies next to each other."""
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        self.fwpkm_slot.repeat_interleave(repeats)

    def batch_select_indices(self, indices: Shaped[Tensor, " b"]) -> None:
        """Keep some streams: their numbers, or True for each to keep."""
        super().batch_select_indices(indices)  # type: ignore[misc]
        self.fwpkm_slot.select(indices)

    def activate_past_recording(self) -> None:
        """Remember what is needed to take back tokens from now on."""
        activate = getattr(super(), "activate_past_recording", None)
        if activate is not None:
            activate()
        self.fwpkm_slot.record()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the class that the layer had before."""
        return _blank, (type(self).__mro__[2],), self.__dict__


def slot_of(cache: object, layer: int) -> MemorySlot:
    """Return where `cache` keeps the memory of a layer, which is made room for if need be.

    Raises:
        TypeError: If it is no cache of a decoder.
        ValueError: If it has read tokens without a memory, or is static.
    """
    if not isinstance(cache, Cache) or isinstance(cache, EncoderDecoderCache):
        raise TypeError(f"fwpkm.attach: cache must be a decoder's Cache, got {type(cache).__name__}")
    if cache.layer_class_to_replicate is not None:
        while len(cache.layers) <= layer:
            cache.layers.append(cache.layer_class_to_replicate())
    own: Any = cache.layers[layer]
    if not isinstance(own, RememberingLayer):
        if isinstance(own, StaticLayer):
            raise ValueError(
                "fwpkm.attach: cache must be a DynamicCache, got static layers, which transformers compiles "
                "around; leave out cache_implementation='static'"
            )
        if int(own.get_seq_length()):
            raise ValueError(
                f"fwpkm.attach: cache must be a fresh cache or have been read with the memory; layer {layer} "
                f"has seen {int(own.get_seq_length())} tokens without one. Read them again"
            )
        own.__class__ = _remembering(own.__class__)
        own.fwpkm_slot = MemorySlot()
        cache.__dict__.setdefault("crop", functools.partial(_crop, cache))
    return own.fwpkm_slot


def memory_states(cache: object) -> dict[int, FwPKMState]:
    """Return the memories in a transformers cache, by their layer: values, to keep, save, flush or freeze."""
    layers = cache.layers if isinstance(cache, Cache) else []
    slots = {i: own.fwpkm_slot for i, own in enumerate(layers) if isinstance(own, RememberingLayer)}
    return {i: slot.state for i, slot in slots.items() if slot.state is not None}


def set_memory_states(cache: object, states: Mapping[int, FwPKMState]) -> None:
    """Put memories into a transformers cache, so that its streams go on from them.

    In a fresh cache they are all that is left of what was read: attention sees none of it.

    Raises:
        TypeError: If it is no cache of a decoder.
        ValueError: If it has read tokens without a memory.
    """
    for layer, state in states.items():
        slot = slot_of(cache, layer)
        slot.reset()
        slot.state = state


@functools.cache
def _remembering(kind: type) -> type:
    # Without its own `_layer_type` the class would enter itself in transformers' list of cache layers.
    return type(f"Remembering{kind.__name__}", (RememberingLayer, kind), {"_layer_type": None})


def _crop(cache: Cache, tokens_to_remove: int) -> None:
    """Let all layers go back, or none: a memory that cannot says so before a layer has gone."""
    for own in cache.layers:
        if isinstance(own, RememberingLayer):
            own.fwpkm_slot.check_crop(-tokens_to_remove)
    type(cache).crop(cache, tokens_to_remove)


def _blank(kind: type) -> Any:
    made: Any = _remembering(kind)
    return made.__new__(made)
