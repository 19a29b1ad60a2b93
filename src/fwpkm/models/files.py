"""A trained model as a folder: config.json, model.safetensors, and whatever the caller lays beside them."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fwpkm.files import write_json, write_tensors
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder

CONFIG = "config.json"
"""The decoder's config, as `fwpkm.models.hf` reads it too."""
WEIGHTS = "model.safetensors"
"""Its weights, under the names that `fwpkm.models.hf` gives them."""
_PREFIX = "decoder."


def save_model(folder: str | Path, model: Decoder, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a decoder so that `load_model` and transformers (with `fwpkm.models.hf` imported) can read it.

    Args:
        folder: Made if need be; other files in it stay.
        model: The decoder.
        weights: Its state where it is at hand already, as for models whose weights are spread over processes.

    Raises:
        OSError: If the disk is full or cannot be written to, with the file; an older one is then as it was.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict() if weights is None else weights
    named = {f"{_PREFIX}{name}": x for name, x in state.items()}
    write_tensors(folder / WEIGHTS, named, {"format": "pt"})
    config = {
        "architectures": ["FwPKMForCausalLM"],
        "model_type": "fwpkm",
        "model": model.config.to_dict(),
        "use_cache": True,
    }
    write_json(folder / CONFIG, config, indent=2)


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> Decoder:
    """Read a decoder that `save_model` or transformers wrote, ready to answer.

    Raises:
        FileNotFoundError: If a file is not there, with its name.
        ValueError: If a file is damaged, or the weights do not fit the config, with all names.
    """
    folder = Path(folder)
    model = Decoder(_read_config(folder / CONFIG))
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f"load_model: no {WEIGHTS} in {folder}; give a folder that fwpkm train exported"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"load_model: {path} is damaged or no safetensors file ({error})") from error
    load_weights(model, {name.removeprefix(_PREFIX): x for name, x in weights.items()}, where=str(path))
    return model.to(device).eval()


def _read_config(path: Path) -> DecoderConfig:
    if not path.is_file():
        raise FileNotFoundError(
            f"load_model: no {CONFIG} in {path.parent}; give a folder that fwpkm train exported"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"load_model: {path} is no JSON file ({error})") from error
    if not isinstance(content, dict) or content.get("model_type") != "fwpkm" or "model" not in content:
        raise ValueError(f"load_model: {path} must describe a model of type 'fwpkm'; it is of another kind")
    try:
        return DecoderConfig.from_dict(content["model"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_weights(model: Decoder, weights: Mapping[str, Tensor], *, where: str = "load_weights") -> None:
    """Give a decoder its weights, all of them and no others.

    Raises:
        ValueError: With all names that are missing, unknown or of another shape.
    """
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own.keys() - weights.keys()]
    problems += [f"{name} is unknown" for name in weights.keys() - own.keys()]
    problems += [
        f"{name} must be {tuple(own[name].shape)}, got {tuple(weights[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    if problems:
        raise ValueError(f"{where}: the weights do not fit the model: {'; '.join(sorted(problems))}")
    with torch.no_grad():
        for name, x in own.items():
            x.copy_(weights[name])
