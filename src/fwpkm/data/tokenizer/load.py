"""From a word or a path to a tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fwpkm.data.tokenizer.byte import ByteTokenizer
from fwpkm.data.tokenizer.hugging_face import HUB_PREFIX, load_from_hub, load_gguf, load_hugging_face
from fwpkm.data.tokenizer.mistral import SentencePieceTokenizer, load_mistral
from fwpkm.data.tokenizer.protocol import KEPT, Tokenizer
from fwpkm.files import read_json
from fwpkm.nested import unknown_name

_NAMED: dict[str, Callable[[], Tokenizer]] = {"bytes": ByteTokenizer, "mistral": load_mistral}


def load_tokenizer(spec: str | Path, *, allow_lossy: bool = False) -> Tokenizer:
    """Find the tokenizer that `spec` names.

    Args:
        spec: "bytes", "mistral", "hf:NAME" or "hf:NAME@REVISION" of the Hugging Face hub, or a path: a directory that
            `Tokenizer.save` wrote, a Hugging Face model directory with tokenizer.json, that file, or a model's
            .gguf file.
        allow_lossy: Whether a tokenizer that does not give every text back will do.

    Raises:
        ValueError: If there is no such tokenizer, or it is lossy.
        RuntimeError: If a library that it needs is missing.
    """
    if str(spec) in _NAMED:
        return _NAMED[str(spec)]()
    if str(spec).startswith(HUB_PREFIX):
        return load_from_hub(str(spec), allow_lossy=allow_lossy)
    path = Path(spec)
    if not path.exists():
        raise ValueError(
            f"tokenizer: {unknown_name('name', str(spec), _NAMED)}, and there is no such path either; one of the "
            f"Hugging Face hub is {HUB_PREFIX}NAME"
        )
    if path.suffix == ".gguf":
        return load_gguf(path, allow_lossy=allow_lossy)
    kept = path / KEPT
    described: dict[str, Any] = read_json(kept) if kept.is_file() else {"kind": "hugging_face"}
    match described["kind"]:
        case "bytes":
            return ByteTokenizer()
        case "sentencepiece":
            return SentencePieceTokenizer((path / "tokenizer.model").read_bytes(), name=described["name"])
        case "hugging_face":
            lossy = allow_lossy or described.get("allow_lossy", False)
            return load_hugging_face(path, allow_lossy=lossy)
    raise ValueError(
        f"{kept}: {unknown_name('kind', described['kind'], ['bytes', 'sentencepiece', 'hugging_face'])}"
    )
