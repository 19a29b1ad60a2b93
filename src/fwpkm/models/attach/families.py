"""Which transformers models take a memory, and where their layers are."""

import importlib.util
import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from fwpkm.nested import unknown_name

FAMILIES = {
    "gemma": "layers",
    "gemma2": "layers",
    "gemma3_text": "layers",
    "gpt2": "h",
    "gpt_neox": "layers",
    "llama": "layers",
    "mistral": "layers",
    "olmo2": "layers",
    "phi3": "layers",
    "qwen2": "layers",
    "qwen3": "layers",
    "smollm3": "layers",
}
"""Supported `config.model_type`, and what the decoder calls its list of layers."""
_CACHE_ARGUMENTS = ("cache", "layer_past")


def check_family(where: str, model: object) -> PreTrainedModel:
    """Return `model` if a memory can be attached to it.

    Raises:
        TypeError: If it is no transformers model.
        ValueError: If it is of another family, or sees later tokens, or reads another text too.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"{where}: model must be a transformers model, got {type(model).__name__}")
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise ValueError(
            f"{where}: {type(model).__name__} is not supported: {unknown_name('model type', kind, FAMILIES)}"
        )
    problems = [
        f"{name} must be {needed}, got {name}={value}"
        for name, needed in (
            ("add_cross_attention", False),
            ("use_bidirectional_attention", False),
            ("is_causal", True),
        )
        if (value := getattr(model.config, name, None)) not in (needed, None)
    ]
    if problems:
        raise ValueError(f"{where}: a memory needs a causal decoder; in the config {'; '.join(problems)}")
    return model


def load_base(name: str | os.PathLike[str], dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a causal language model of transformers, ready to answer.

    Args:
        name: A folder that transformers reads, a name on the hub, or a file ending in .gguf, whose weights become
            ordinary ones.
        dtype: Precision of the weights; None is that of the files, and float32 for a .gguf file.

    Raises:
        FileNotFoundError: If there is no such .gguf file, or no folder of a name that cannot be one on the hub.
        RuntimeError: If the package that reads .gguf files is missing.
        ValueError: If the model is of another family.
    """
    if Path(name).suffix == ".gguf":
        return check_family("load_base", _load_gguf(Path(name), dtype or torch.float32).eval())
    on_hub = not os.fspath(name).startswith((".", "~", os.sep)) and len(Path(name).parts) <= 2
    if not on_hub and not Path(name).is_dir():
        raise FileNotFoundError(f"load_base: no such folder: {name}")
    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype or "auto")
    return check_family("load_base", model.eval())


def _load_gguf(file: Path, dtype: torch.dtype) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"load_base: no such file: {file}")
    if importlib.util.find_spec("gguf") is None:
        raise RuntimeError(f"load_base: {file.name} needs the package gguf; pip install 'fwpkm[hf]'")
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    # The weights are whole numbers of the model by now; what is left of the format would forbid saving them.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the part of a supported model that holds its layers."""
    decoder: Any = model.base_model
    return decoder


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the layers of a supported model."""
    layers: Any = getattr(decoder_of(model), FAMILIES[model.config.model_type])
    return layers


class CacheArgument:
    """Finds the cache among the arguments of a layer's call."""

    def __init__(self, layer: nn.Module) -> None:
        names = list(inspect.signature(layer.forward).parameters)
        self.name = next(name for name in _CACHE_ARGUMENTS if name in names)
        """What the layer calls it."""
        self._place = names.index(self.name)

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the cache of this call, or None."""
        return args[self._place] if len(args) > self._place else kwargs.get(self.name)
