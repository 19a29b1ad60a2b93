"""Carried memories to files and back: tensors as safetensors, everything else as JSON, no pickles."""

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fwpkm.layers.conv import ShortConvState
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNetState
from fwpkm.layers.kv import KVState, Room
from fwpkm.memory.fast_mlp import FastMLPState
from fwpkm.memory.overlay import Overlay
from fwpkm.memory.state import FwPKMState
from fwpkm.memory.store import RowStore
from fwpkm.memory.waiting import Waiting
from fwpkm.models.cache import BlockState, DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.fast_mlp import FastMLP, FastMLPOptions

_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        BlockState, CoreOptions, DecoderCache, FastMLP, FastMLPOptions, FastMLPState, FwPKMState, GatedDeltaNetState,
        KVState, ShortConvState,
    )
}  # fmt: skip


def save_carried(folder: Path, rank: int, carried: list[DecoderCache | None]) -> None:
    """Write what one process's streams have seen."""
    tensors: dict[str, Tensor] = {}
    structure = [_encode(cache, tensors) for cache in carried]
    save_file(tensors, folder / f"carried-{rank}.safetensors", metadata={"structure": json.dumps(structure)})


def load_carried(folder: Path, rank: int, model: Decoder, parts: int) -> list[DecoderCache | None]:
    """Read it back, over the model's own base tables.

    Raises:
        ValueError: If it was cut into another number of parts.
    """
    from safetensors import safe_open

    path = folder / f"carried-{rank}.safetensors"
    with safe_open(path, framework="pt") as file:
        structure = json.loads(file.metadata()["structure"])
    if all(item is None for item in structure):
        return [None] * parts
    if len(structure) != parts:
        raise ValueError(
            f"load_carried: {path} holds memories of accumulate={len(structure)} parts, got train.accumulate={parts}; "
            "go on with the same number, or start a new run from the exported model"
        )
    tensors, device = load_file(path), model.embed.weight.device
    caches = [_decode(item, lambda name: tensors[name].to(device)) for item in structure]
    return [None if cache is None else _rebased(cache, model) for cache in caches]


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as JSON; its tensors go into `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Overlay):
        store = value.store.compacted()
        return {"Overlay": [_encode(store.index, tensors), _encode(store.rows, tensors), store.sparse_grad]}
    if isinstance(value, Waiting):
        return {"Waiting": [_encode(value.packed, tensors), list(value.counts)]}
    if isinstance(value, tuple):
        return [_encode(item, tensors) for item in value]
    if is_dataclass(value) and type(value).__name__ in _CLASSES:
        named = ((f.name, getattr(value, f.name)) for f in fields(value) if f.init)
        return {type(value).__name__: {name: _encode(x, tensors) for name, x in named}}
    if isinstance(value, Room):
        return None
    assert value is None or isinstance(value, bool | int | float | str), (
        f"cannot write {type(value).__name__}"
    )
    return value


def _decode(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, tensor) for item in value)
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensor(content)
    if kind == "Overlay":
        index, rows = _decode(content[0], tensor), _decode(content[1], tensor)
        store = RowStore(base=None, index=index, rows=rows, used=rows.shape[0], sparse_grad=content[2])
        return Overlay(store)
    if kind == "Waiting":
        return Waiting.of(_decode(content[0], tensor), content[1])
    return _CLASSES[kind](**{name: _decode(x, tensor) for name, x in content.items()})


def _rebased(cache: DecoderCache, model: Decoder) -> DecoderCache:
    """Put the written rows over the base tables of `model`."""
    blocks = []
    for state, block in zip(cache.blocks, model.blocks, strict=True):
        if isinstance(state.memory, FwPKMState) and isinstance(block.memory, FwPKM):
            store = state.memory.table.store
            over = Overlay(store.moved(store.index, store.rows, block.memory.initial_values))
            state = replace(state, memory=replace(state.memory, table=over))
        blocks.append(state)
    return DecoderCache(blocks=tuple(blocks))
