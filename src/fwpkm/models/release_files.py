"""Whole checkpoints from the authors' format to ours and back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fwpkm.files import write_json, write_tensors
from fwpkm.models.checkpoint_files import read_checkpoint, written_whole
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import CONFIG, WEIGHTS, load_weights, save_model
from fwpkm.models.release import ReleaseDecoder, from_release, release_tensors
from fwpkm.models.release_export import lost_in_release, lost_without_release, release_fields
from fwpkm.models.release_fields import NO_EFFECT

_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "added_tokens.json")
_OUR_TYPE = "fwpkm"


def import_release(source: Path, target: Path) -> list[str]:
    """Turn a checkpoint of the authors' into a folder that `load_model` and transformers read.

    Args:
        source: A folder, or a weights file with config.json beside it.
        target: A folder that is not there yet.

    Returns:
        What the new model does otherwise than the release, one sentence each.

    Raises:
        ValueError: With everything in the files that does not fit. Nothing is written then.
        OSError: If a file is missing, or `target` is there already.
    """
    fields, tensors = read_checkpoint(source)
    if fields.get("model_type") == _OUR_TYPE:
        raise ValueError(f"{source} is in our format already; --to release turns it into the authors'")
    model = from_release(fields, tensors)
    notes = lost_without_release(model.config)
    if model.config.fwpkm is not None:
        notes.append(
            "fwpkm.initial_values: 'learned' here, as files keep no other table; to train as the release does, call "
            "requires_grad_(False) on the tables"
        )
    with written_whole(target) as folder:
        save_model(folder, stored(model))
        _add_to_config(folder, {name: fields[name] for name in _TOKEN_IDS if fields.get(name) is not None})
        _copy_tokenizer(source, folder)
    dropped = [name for name in fields if name in NO_EFFECT and name not in (*_TOKEN_IDS, "model_type")]
    return notes + ([f"fields without effect were left out: {', '.join(sorted(dropped))}"] if dropped else [])


def export_release(source: Path, target: Path) -> list[str]:
    """Turn a folder in our format into a checkpoint that the authors' code reads.

    Args:
        source: A folder, or a weights file with config.json beside it.
        target: A folder that is not there yet.

    Returns:
        What the release does otherwise than the model, one sentence each.

    Raises:
        ValueError: With everything that the release has nothing like. Nothing is written then.
        OSError: If a file is missing, or `target` is there already.
    """
    config, tensors = read_checkpoint(source)
    if config.get("model_type") != _OUR_TYPE or not isinstance(config.get("model"), dict):
        raise ValueError(f"{source} is not in our format (model_type {_OUR_TYPE!r} with a section 'model')")
    decoder = _decoder(DecoderConfig.from_dict(config["model"]), tensors, where=str(source))
    fields, weights = release_fields(decoder.config), release_tensors(decoder)
    from_release(fields, weights)  # refuses what the release's modules have in other shapes
    ids = {name: config[name] for name in _TOKEN_IDS if config.get(name) is not None}
    with written_whole(target) as folder:
        write_tensors(folder / WEIGHTS, weights, {"format": "pt"})
        described = {
            "architectures": ["Qwen3NextMemForCausalLM"],
            "model_type": "qwen3_next_mem",
            **fields,
            **ids,
        }
        write_json(folder / CONFIG, described, indent=2)
        _copy_tokenizer(source, folder)
    return lost_in_release(decoder.config)


@torch.no_grad()
def stored(model: ReleaseDecoder) -> Decoder:
    """Return a plain decoder with the same numbers, whose file holds its tables, too."""
    config = model.config
    if config.fwpkm is not None:
        config = replace(config, fwpkm=replace(config.fwpkm, initial_values="learned"))
    decoder = Decoder(config).to(model.embed.weight)
    own, given = decoder.state_dict(), dict(model.named_buffers()) | dict(model.named_parameters())
    for name, x in own.items():
        x.copy_(given[name])
    return decoder


def _decoder(config: DecoderConfig, tensors: dict[str, Tensor], *, where: str) -> Decoder:
    weights = {name.removeprefix("decoder."): x for name, x in tensors.items()}
    decoder = Decoder(config)
    if "embed.weight" in weights:
        decoder.to(weights["embed.weight"])
    load_weights(decoder, weights, where=where)
    return decoder


def _add_to_config(folder: Path, more: dict[str, Any]) -> None:
    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    write_json(folder / CONFIG, content | more, indent=2)


def _copy_tokenizer(source: Path, folder: Path) -> None:
    beside = source if source.is_dir() else source.parent
    for path in (path for pattern in _TOKENIZER for path in beside.glob(pattern)):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
