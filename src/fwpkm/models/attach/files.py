"""Adapters: memories that were trained for a base model, as one small file that knows which model that was."""

import copy
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.memory.files import MemoryFile, digest, read_file, write_file
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.models.attach.attach import attach, detach, memories
from fwpkm.models.attach.attachment import Attachment, attachment_of, is_of_memory
from fwpkm.models.attach.families import check_family, decoder_of
from fwpkm.models.attach.window import AttentionWindow, attention_window, limit_attention
from fwpkm.nested import from_mapping, to_mapping

M = TypeVar("M", bound=nn.Module)

KIND = "Adapter"
"""What an adapter's file calls itself among memory files."""
_DIMENSIONS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "hidden_act",
)
"""What must be the same in the base model, besides its weights."""
_TABLE = "initial_values"
_SLOTS, _ROWS = "changed_slots", "changed_rows"


def save_adapter(model: nn.Module, path: str | os.PathLike[str]) -> int:
    """Save the memories of a model to one file, and return its bytes.

    It holds the projections, the sub-keys, and those rows of a table that are not as the seed draws them; the
    config; and a fingerprint of the base, which is not in it. The file is replaced whole, once the new contents
    are on disk.

    Raises:
        ValueError: If the model has no memories.
    """
    own = memories(model)
    attachment = attachment_of(model)
    assert attachment is not None, "it has memories"
    header = {
        "tree": _tree(attachment),
        "fingerprint": base_fingerprint(attachment.model).to_header(),
        "rows": "exact",
        "loss": 0.0,
        "extra": {"layers": list(own), "base": attachment.model.config.model_type},
    }
    tensors = {
        f"{layer}.{name}": x for layer, memory in own.items() for name, x in _tensors_of(memory).items()
    }
    return write_file(path, MemoryFile(header=header, tensors=tensors))


def load_adapter(
    model: M,
    path: str | os.PathLike[str],
    *,
    check_weights: bool = True,
    dtype: torch.dtype | None = None,
) -> M:
    """Attach the memories of a file to the model that they were trained for, and return it.

    If attention was limited by `limit_attention` when the file was saved, it is now.

    Args:
        model: The base model, without memories.
        path: What `save_adapter` wrote.
        check_weights: Refuse a base whose weights, rounded to bfloat16, are other ones.
        dtype: As in `attach`.

    Raises:
        ValueError: If the file is damaged or none of these, the model has memories already, or it is not the
            model that they were trained for, with everything that differs.
        OSError: If the file cannot be read.
    """
    where = f"adapter {os.fspath(path)!r}"
    base = check_family("load_adapter", model)
    file = read_file(path)
    if file.header["tree"].get("class") != KIND:
        raise ValueError(f"{where}: must hold an adapter, got a {file.header['tree'].get('class')}")
    _check_base(where, Fingerprint.from_header(file.header["fingerprint"]), base, check_weights)
    tree = file.header["tree"]
    attach(model, tree.get("layers", []), from_mapping(FwPKMConfig, tree.get("config", {})), dtype=dtype)
    try:
        _fill(where, memories(model), file.tensors)
        if "attention" in tree:
            limit = from_mapping(AttentionWindow, tree["attention"])
            limit_attention(base, limit.window, limit.sinks)
    except ValueError:
        detach(model)
        raise
    return model


def _tree(attachment: Attachment) -> dict[str, Any]:
    """Say what an adapter is made of."""
    tree = {"class": KIND, "layers": list(attachment.layers), "config": to_mapping(attachment.config)}
    limit = attention_window(attachment.model)
    return tree if limit is None else {**tree, "attention": to_mapping(limit)}


def base_fingerprint(model: PreTrainedModel) -> Fingerprint:
    """Take the fingerprint of a base model, memories and heads left out.

    Weights are rounded to bfloat16 first, so that a model is the same in every precision that it is loaded in.
    """
    named = decoder_of(model).named_parameters()
    weights = {name: digest(_rounded(p.detach())) for name, p in named if not is_of_memory(name)}
    return Fingerprint(config=_dimensions(model), weights=weights)


def _dimensions(model: PreTrainedModel) -> dict[str, Any]:
    return {name: getattr(model.config, name, None) for name in _DIMENSIONS}


def _rounded(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16) if x.is_floating_point() else x


def _check_base(where: str, trained: Fingerprint, model: PreTrainedModel, check_weights: bool) -> None:
    own = Fingerprint(config=_dimensions(model), weights=trained.weights)
    if check_weights:
        own = base_fingerprint(model)
    if differences := trained.differences(own):
        raise ValueError(
            f"{where}: was trained for another base model; {'; '.join(differences)}. Load that model; if its weights "
            "were trained on purpose, check_weights=False leaves these out"
        )


def _tensors_of(memory: FwPKM) -> dict[str, Tensor]:
    named = {name: x for name, x in memory.state_dict().items() if name != _TABLE}
    table = memory.initial_values
    if table is None:
        return named
    changed = (table.detach() != _drawn(memory)).any(1).nonzero().flatten()
    return {**named, _SLOTS: changed, _ROWS: table.detach()[changed]}


def _drawn(memory: FwPKM) -> Tensor:
    """Return the table that a memory's seed draws."""
    other = copy.deepcopy(memory)
    other.reset_initial()
    assert other.initial_values is not None, "it has a table"
    return other.initial_values.detach()


@torch.no_grad()
def _fill(where: str, own: Mapping[int, FwPKM], tensors: Mapping[str, Tensor]) -> None:
    """Give memories what the file holds, all of it and nothing else."""
    targets: dict[str, Any] = {}
    for layer, memory in own.items():
        targets |= {f"{layer}.{name}": x for name, x in memory.state_dict().items() if name != _TABLE}
    tables = {
        f"{layer}.": memory.initial_values
        for layer, memory in own.items()
        if memory.initial_values is not None
    }
    special = {prefix + name for prefix in tables for name in (_SLOTS, _ROWS)}
    wanted = targets.keys() | special
    problems = [f"{name} is missing" for name in wanted - tensors.keys()]
    problems += [f"{name} is unknown" for name in tensors.keys() - wanted]
    problems += [
        f"{name} must be {tuple(x.shape)}, got {tuple(tensors[name].shape)}"
        for name, x in targets.items()
        if name in tensors and tensors[name].shape != x.shape
    ]
    if problems:
        raise ValueError(f"{where}: the tensors do not fit the config: {'; '.join(sorted(problems))}")
    for name, x in targets.items():
        x.copy_(tensors[name])
    for prefix, table in tables.items():
        _put_rows(where, table, tensors[prefix + _SLOTS], tensors[prefix + _ROWS])


def _put_rows(where: str, table: Tensor, slots: Tensor, rows: Tensor) -> None:
    fits = (
        slots.ndim == 1 and not slots.is_floating_point() and rows.shape == (slots.shape[0], table.shape[1])
    )
    if not fits or (slots.numel() and not 0 <= int(slots.min()) <= int(slots.max()) < table.shape[0]):
        raise ValueError(
            f"{where}: rows must be numbered within a table {tuple(table.shape)}, got {tuple(slots.shape)} numbers "
            f"for rows {tuple(rows.shape)}"
        )
    table[slots.to(table.device)] = rows.to(table)
