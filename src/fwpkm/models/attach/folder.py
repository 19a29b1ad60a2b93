"""A base with trained memories as a folder: the adapter, which base it belongs to, and that base if it was trained."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from fwpkm.files import write_json
from fwpkm.models.attach.attach import attach, freeze_base
from fwpkm.models.attach.attachment import attachment_of, is_of_memory
from fwpkm.models.attach.decoder import BaseDecoder
from fwpkm.models.attach.families import layers_of, load_base
from fwpkm.models.attach.files import load_adapter, save_adapter
from fwpkm.models.attach.window import free_attention, limit_attention
from fwpkm.models.base_config import BASE_FILE, BaseConfig
from fwpkm.models.decoder import Decoder
from fwpkm.nested import from_mapping, to_mapping

ADAPTER = "adapter.safetensors"
"""The memories, as `fwpkm.load_adapter` reads them."""
TUNED = "base"
"""The base as it was trained, in a folder that transformers reads."""


def make_base_decoder(config: BaseConfig) -> BaseDecoder:
    """Load a base, attach the adapter's memories or new ones by torch's seed, and let training change what it shall.

    Raises:
        ValueError: If base, adapter and config do not fit each other, with all that is wrong.
        OSError: If the adapter cannot be read.
    """
    base = load_base(config.path, getattr(torch, config.dtype))
    if config.adapter is None:
        attach(base, config.layers, config.memory, dtype=torch.float32)
    else:
        _attach_adapter(base, config, config.adapter)
    freeze_base(base)
    own = layers_of(base)
    if wrong := [layer for layer in config.tuned_layers if layer >= len(own)]:
        raise ValueError(
            f"[base]: tuned_layers must be numbers from 0 to {len(own) - 1}, got {', '.join(map(str, wrong))}"
        )
    for layer in config.tuned_layers:
        own[layer].requires_grad_(True)
    for memory in (own[layer].fwpkm for layer in config.layers):
        memory.requires_grad_(True)
    if config.window is not None:
        limit_attention(base, config.window, config.sinks)
    return BaseDecoder(base, config)


def _attach_adapter(base: Any, config: BaseConfig, adapter: str) -> None:
    load_adapter(base, adapter, dtype=torch.float32)
    free_attention(base)  # the config says what shall be in sight
    found = attachment_of(base)
    assert found is not None, "just attached"
    problems = []
    if set(found.layers) != set(config.layers):
        problems.append(f"layers must be the adapter's {sorted(found.layers)}, got {sorted(config.layers)}")
    theirs, own = to_mapping(found.config), to_mapping(config.memory)
    problems += [
        f"memory.{name} must be the adapter's {theirs[name]!r}, got {own[name]!r}"
        for name in own
        if theirs[name] != own[name]
    ]
    if problems:
        raise ValueError(f"[base]: adapter {adapter!r}: {'; '.join(problems)}")


def save_base_decoder(folder: str | Path, decoder: Decoder) -> None:
    """Write a folder that `load_base_decoder` reads; the base is in it only if it was trained.

    Raises:
        OSError: If the disk is full or cannot be written to.
    """
    assert isinstance(decoder, BaseDecoder), "a decoder of [model] is saved by save_model"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(decoder.base, folder / ADAPTER)
    if decoder.config.tuned_layers:
        _save_without_memories(decoder.base, folder / TUNED)
    content = {"model_type": "fwpkm_base", "base": replace(decoder.config, adapter=None).to_dict()}
    write_json(folder / BASE_FILE, content, indent=2)


def load_base_decoder(folder: str | Path, device: torch.device | str = "cpu") -> BaseDecoder:
    """Read what `save_base_decoder` wrote, ready to answer.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is damaged, or the base is another one now.
    """
    folder = Path(folder)
    config = _read_config(folder / BASE_FILE)
    tuned = folder / TUNED
    base: Any = load_base(tuned if tuned.is_dir() else config.path, getattr(torch, config.dtype))
    load_adapter(base, folder / ADAPTER, dtype=torch.float32)
    return BaseDecoder(base.to(device), config).eval()


def _read_config(path: Path) -> BaseConfig:
    if not path.is_file():
        raise FileNotFoundError(f"load_base_decoder: no {BASE_FILE} in {path.parent}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return from_mapping(BaseConfig, content["base"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"load_base_decoder: {path} must describe a base with memories ({error})") from error


def _save_without_memories(base: PreTrainedModel, folder: Path) -> None:
    state = {name: x for name, x in base.state_dict().items() if not is_of_memory(name)}
    base.save_pretrained(folder, state_dict=state)
