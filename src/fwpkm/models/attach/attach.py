"""Attach memories to a transformers decoder, take them off again, and choose what is trained."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.models.attach.attachment import Attachment, attachment_of
from fwpkm.models.attach.families import check_family, layers_of
from fwpkm.nested import from_mapping

M = TypeVar("M", bound=nn.Module)


def attach(
    model: M,
    layers: Sequence[int],
    config: FwPKMConfig | Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> M:
    """Give a transformers decoder a memory before each of `layers`, and return the same model.

    The memories' outputs start at zero: logits are bit for bit what they were, until training changes that.
    States travel in the model's own `cache`; without a cache every call starts with fresh memories.

    >>> model = fwpkm.attach(AutoModelForCausalLM.from_pretrained(...), layers=[8, 20], config={"topk": 8})

    Args:
        model: A model of one of `FAMILIES`.
        layers: Which layers, counted from 0. What comes into layer 0 are embeddings, which know no neighbours.
        config: The memory's; its `dim` is the model's width, and may be left out of a mapping. Layer i draws its
            table with `table_seed + i`. None is the paper's sizes.
        dtype: Of the memories' projections; None is the model's. Tables are never narrower than float32.

    Raises:
        TypeError: If `model` is no transformers model.
        ValueError: If the model is of another family or has memories already, or with everything that is wrong
            with `layers` and `config`.
    """
    base = check_family("fwpkm.attach", model)
    if attachment_of(base) is not None:
        raise ValueError("fwpkm.attach: the model has memories already; call fwpkm.detach(model) first")
    problems = _layer_problems(layers, len(layers_of(base)))
    memory = _memory_config(base, config, problems)
    if problems:
        raise ValueError("fwpkm.attach: " + "; ".join(problems))
    assert memory is not None, "there would be a problem"
    Attachment(base, sorted(layers), memory).install(dtype or base.dtype)
    return model


def detach(model: M) -> M:
    """Take the memories off a model, which is then what it was before `attach`, and return it.

    Weights of the base that were trained meanwhile keep their numbers.

    Raises:
        ValueError: If there are no memories.
    """
    _attachment("fwpkm.detach", model).remove()
    return model


def memories(model: nn.Module) -> dict[int, FwPKM]:
    """Return the memories of a model by their layer.

    Raises:
        ValueError: If there are none.
    """
    return _attachment("memories", model).memories


def freeze_base(model: nn.Module) -> None:
    """Let training change the memories only; `unfreeze_base` or `detach` undo it.

    Raises:
        ValueError: If there are no memories.
    """
    _attachment("freeze_base", model).freeze()


def unfreeze_base(model: nn.Module) -> None:
    """Let training change what it could change before `freeze_base`, and the memories.

    Raises:
        ValueError: If there are no memories.
    """
    _attachment("unfreeze_base", model).unfreeze()


def _attachment(where: str, model: nn.Module) -> Attachment:
    found = attachment_of(model)
    if found is None:
        raise ValueError(
            f"{where}: the {type(model).__name__} has no memories; call fwpkm.attach(model, ...)"
        )
    return found


def _layer_problems(layers: Sequence[int], count: int) -> list[str]:
    if not layers:
        return [f"layers must name at least one of the layers 0 to {count - 1}, got none"]
    problems = [
        f"layers must be numbers from 0 to {count - 1}, got {layer!r}"
        for layer in layers
        if type(layer) is not int or not 0 <= layer < count
    ]
    twice = sorted({repr(layer) for layer in layers if list(layers).count(layer) > 1})
    return problems + [f"layers must differ, got {layer} twice" for layer in twice]


def _memory_config(
    model: PreTrainedModel, config: FwPKMConfig | Mapping[str, Any] | None, problems: list[str]
) -> FwPKMConfig | None:
    """Return what defines the memories, or note what is wrong with it."""
    dim = model.config.hidden_size
    try:
        own = (
            config
            if isinstance(config, FwPKMConfig)
            else from_mapping(FwPKMConfig, {"dim": dim, **(config or {})})
        )
    except ValueError as error:
        problems.append(str(error))
        return None
    if own.dim != dim:
        problems.append(f"config.dim must be the model's width {dim}, got dim={own.dim}")
    return own
