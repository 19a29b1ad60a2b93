"""What `attach` does to a model: hooks that let memories read on before their layers, and how to undo it."""

import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers import PreTrainedModel

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.models.attach.cache import MemorySlot, slot_of
from fwpkm.models.attach.families import CacheArgument, decoder_of, layers_of
from fwpkm.ops.compiling import uncompiled

MEMORY = "fwpkm"
"""The memory's name within its layer."""
_SELF = "_fwpkm_attachment"
_PREPARE = "_prepare_cache_for_generation"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """What all layers need to know about one call of the model."""

    mask: Bool[Tensor, "B T"] | None
    """False at padding among the new tokens; None if there is none."""


class Attachment:
    """The memories of one model.

    Args:
        model: Of a supported family.
        layers: Where the memories are, in order.
        config: What they have in common; layer i draws its table with `table_seed + i`.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[int], config: FwPKMConfig) -> None:
        self.model, self.layers, self.config = model, tuple(layers), config
        self._decoder = decoder_of(model)
        self._arguments = list(inspect.signature(self._decoder.forward).parameters)
        self._calls: dict[int, _Call] = {}  # by thread: a model may serve several
        self._undo: list[Callable[[], None]] = []
        self._trainable: dict[str, bool] | None = None

    @property
    def memories(self) -> dict[int, FwPKM]:
        """The memories by their layer."""
        own = layers_of(self.model)
        return {layer: own[layer].get_submodule(MEMORY) for layer in self.layers}  # type: ignore[misc]

    def install(self, dtype: torch.dtype) -> None:
        """Make the memories and hang them in."""
        for index in self.layers:
            layer = layers_of(self.model)[index]
            setattr(layer, MEMORY, self._make_memory(index, layer, dtype))
            hook = partial(self._remember, index, CacheArgument(layer))
            self._undo.append(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        begin = self._decoder.register_forward_pre_hook(self._begin, with_kwargs=True)
        end = self._decoder.register_forward_hook(self._end, always_call=True)
        self._undo += [begin.remove, end.remove]
        if hasattr(self.model, _PREPARE):
            self.model.__dict__[_PREPARE] = self._prepare_cache
        self.model.__dict__[_SELF] = self

    def remove(self) -> None:
        """Take everything off again."""
        self.unfreeze()
        for undo in self._undo:
            undo()
        for index in self.layers:
            delattr(layers_of(self.model)[index], MEMORY)
        for name in (_PREPARE, _SELF):
            self.model.__dict__.pop(name, None)

    def freeze(self) -> None:
        """Let training change the memories only."""
        if self._trainable is None:
            self._trainable = {name: p.requires_grad for name, p in self._base_parameters()}
        for _, p in self._base_parameters():
            p.requires_grad_(False)

    def unfreeze(self) -> None:
        """Undo `freeze`."""
        before, self._trainable = self._trainable or {}, None
        for name, p in self._base_parameters():
            p.requires_grad_(before.get(name, p.requires_grad))

    def _base_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if not is_of_memory(name)]

    def _make_memory(self, index: int, layer: nn.Module, dtype: torch.dtype) -> FwPKM:
        memory = FwPKM(replace(self.config, table_seed=self.config.table_seed + index))
        with torch.no_grad():
            for p in memory.out_proj.parameters():
                p.zero_()
        memory.train(layer.training)
        return memory.to(next(layer.parameters()).device, dtype)

    @uncompiled
    def _begin(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = {**dict(zip(self._arguments, args, strict=False)), **kwargs}
        tokens = given.get("inputs_embeds") if given.get("input_ids") is None else given["input_ids"]
        mask = given.get("attention_mask")
        if mask is None:
            _refuse_packed(given.get("position_ids"))
        call = _Call(mask=None if tokens is None else _new_columns(mask, tokens.shape[0], tokens.shape[1]))
        self._calls[threading.get_ident()] = call

    @uncompiled
    def _end(self, *_: Any) -> None:
        self._calls.pop(threading.get_ident(), None)

    @uncompiled
    def _remember(
        self,
        index: int,
        argument: CacheArgument,
        layer: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Add to a layer's input what its memory makes of it."""
        mask, memory = self._mask(index), cast(FwPKM, layer.get_submodule(MEMORY))
        h, rest, named = _hidden_states(args, kwargs)
        checkpoints = bool(getattr(layer, "gradient_checkpointing", False)) and layer.training
        recompute = checkpoints and torch.is_grad_enabled()
        # A layer that computes itself again keeps no cache either.
        cache = None if recompute else argument.find(args, kwargs)
        slot = MemorySlot() if cache is None else slot_of(cache, index)
        x = h.to(memory.q_proj.weight.device, memory.q_proj.weight.dtype)
        mask = None if mask is None else mask.to(x.device)
        y = slot.advance(memory, x, mask, recompute=recompute)
        return (h + y.to(h), *rest), named

    def _mask(self, index: int) -> Bool[Tensor, "B T"] | None:
        """Return the mask of the call that this thread is in."""
        call = self._calls.get(threading.get_ident())
        if call is None:
            raise RuntimeError(
                f"fwpkm.attach: layer {index} was called outside its model, where no attention_mask is known. If "
                "layers are wrapped to compute them again, use model.activation_checkpointing_enable() instead"
            )
        return call.mask

    def _prepare_cache(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Let `generate()` start with room for memories, as it may ask at once that all calls be recorded."""
        prepare = getattr(type(self.model), _PREPARE)
        result = prepare(self.model, generation_config, model_kwargs, *args, **kwargs)
        cache = model_kwargs.get("cache")
        if cache is not None:
            slots = [slot_of(cache, index) for index in self.layers]
            for slot in slots if generation_config.is_assistant else ():
                slot.record()
        return result


def attachment_of(model: nn.Module) -> Attachment | None:
    """Return what `attach` left with a model, if it was called."""
    found: Attachment | None = model.__dict__.get(_SELF)
    return found


def is_of_memory(name: str) -> bool:
    """Whether a parameter's or buffer's name is that of a memory, and not of the base."""
    return f".{MEMORY}." in name


def _hidden_states(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Split a layer's arguments into hidden states, other positions and names."""
    if args:
        return args[0], args[1:], kwargs
    named = dict(kwargs)
    return named.pop("hidden_states"), (), named


def _new_columns(mask: Any, B: int, T: int) -> Bool[Tensor, "B T"] | None:
    """Return the part of a mask that is about the new tokens, or None if none of them is padding."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[0] != B or mask.shape[1] < T:
        got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"fwpkm.attach: attention_mask must be [B, T] = [{B}, {T}], or as long as all tokens so far, 0 at padding: "
            f"a memory must know which tokens are padding; got {got}"
        )
    new = mask[:, mask.shape[1] - T :].bool()
    return None if bool(new.all()) else new


def _refuse_packed(position_ids: Any) -> None:
    """Refuse several documents in a row of tokens: memories would go on from one to the next."""
    if position_ids is not None and bool((position_ids.diff(dim=-1) != 1).any()):
        raise ValueError(
            "fwpkm.attach: position_ids must count on by one: documents packed in one row would share a memory; "
            "give each document a row, padded, with its attention_mask"
        )
