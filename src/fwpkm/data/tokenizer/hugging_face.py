"""Any tokenizer that is kept as a Hugging Face `tokenizer.json`, our own trained ones included."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from fwpkm.data.extra import need
from fwpkm.data.tokenizer.protocol import KEPT, fingerprint_of, refuse_surrogates
from fwpkm.files import read_json, write_bytes, write_json

HUB_PREFIX = "hf:"
_SPECIAL_NAMES = {
    "bos": ("<s>", "<|begin_of_text|>", "<|startoftext|>", "<|im_start|>", "<bos>", "[CLS]"),
    "eos": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<eos>", "[SEP]"),
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
}
_PROBES = ("A b  c\n\n\td. ", " leading", "naïve Ünïcode 漢字 😀 \u200b", "1234567890", "don't it's \r\n x")
_SENTINEL = "\n"
_SPACE_MARK = "\u2581"
"""What tokenizers converted from SentencePiece write for a space, and so cannot tell from one."""


class HuggingFaceTokenizer:
    """A `tokenizers.Tokenizer` held to exact round trips.

    Args:
        backend: The tokenizer of the library `tokenizers`.
        name: What to call it: where it was loaded from.
        special: Ids of "bos", "eos" and "pad" where they are known; others are looked up by the usual names.
        allow_lossy: Whether to accept a tokenizer that does not give every text back, such as a lower-casing one.

    Raises:
        ValueError: If it has no end-of-text token, or is lossy.
    """

    def __init__(
        self, backend: Any, *, name: str, special: dict[str, int] | None = None, allow_lossy: bool = False
    ) -> None:
        self.name = name
        self._backend = backend
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # "</s>" in a text is text
        ids = {kind: _find(backend, kind) for kind in _SPECIAL_NAMES} | (special or {})
        if ids["eos"] is None:
            raise ValueError(
                f"{name}: a tokenizer must have an end-of-text token, got none of {_SPECIAL_NAMES['eos']}"
            )
        self.eos_id: int = ids["eos"]
        self.bos_id: int | None = ids["bos"]
        self.pad_id: int | None = ids["pad"]
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.fingerprint = fingerprint_of(
            backend.to_str().encode(), str(sorted(ids.items(), key=str)).encode()
        )
        self._allow_lossy, self._loses_mark = allow_lossy, False
        self._lead = len(self._ids(_SENTINEL))
        self._loses_mark = (
            self.decode(self._ids(f"a{_SPACE_MARK}b")) != f"a{_SPACE_MARK}b" and not allow_lossy
        )
        self.lossless = self._is_lossless()
        if not (self.lossless or allow_lossy):
            raise ValueError(
                f"{name}: a tokenizer must give every text back exactly, got one that does not; pass "
                "allow_lossy=True (--allow-lossy) to use it all the same"
            )

    def encode(self, text: str, *, continuing: bool = False) -> Int[np.ndarray, " T"]:
        """Turn text into ids."""
        if not continuing or not text:
            return self._ids(text)
        return self._ids(_SENTINEL + text)[self._lead :] if self._has_prefix() else self._ids(text)

    def encode_many(self, texts: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
        """Turn many texts into ids at once."""
        for text in texts:
            self._refuse(text)
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(one.ids, np.int64) for one in encoded]

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " T"]) -> str:
        """Turn ids into text."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def token_text(self, token: int) -> str:
        """Return the text of one token after a line feed, without the line feed."""
        lead = self._ids(_SENTINEL).tolist()
        return self.decode([*lead, token])[len(self.decode(lead)) :]

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json`, and the special ids beside it."""
        write_bytes(directory / "tokenizer.json", self._backend.to_str(pretty=True).encode())
        special = {"bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id}
        kept = {"kind": "hugging_face", "special": special, "allow_lossy": self._allow_lossy}
        write_json(directory / KEPT, kept)

    def _ids(self, text: str) -> Int[np.ndarray, " T"]:
        self._refuse(text)
        return np.asarray(self._backend.encode(text, add_special_tokens=False).ids, np.int64)

    def _refuse(self, text: str) -> None:
        refuse_surrogates(text, self.name)
        if self._loses_mark and (place := text.find(_SPACE_MARK)) >= 0:
            raise ValueError(
                f"{self.name}: this tokenizer takes U+2581 for a space, got one at character {place}; replace it, "
                "use another tokenizer, or pass allow_lossy=True (--allow-lossy)"
            )

    def _has_prefix(self) -> bool:
        """Whether a start marker is put before a text, which a text that goes on must not get."""
        return not np.array_equal(self._ids("a")[:1], self._ids(_SENTINEL + "a")[self._lead :][:1])

    def _is_lossless(self) -> bool:
        return all(self.decode(self._ids(text)) == text for text in _PROBES)


def load_hugging_face(path: Path, *, allow_lossy: bool = False) -> HuggingFaceTokenizer:
    """Load `tokenizer.json`, or the directory that holds it.

    Raises:
        ValueError: If there is none, it cannot be read, or it is lossy.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"{path}: a tokenizer directory must hold tokenizer.json, got none; save the tokenizer as fast"
        )
    tokenizers = need("tokenizers", "data")
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{file}: this must be a Hugging Face tokenizer, got {error}") from None
    return HuggingFaceTokenizer(
        backend, name=str(path), special=_special_ids(file.parent, backend), allow_lossy=allow_lossy
    )


def load_gguf(file: Path, *, allow_lossy: bool = False) -> HuggingFaceTokenizer:
    """Load the tokenizer that a model's .gguf file carries.

    Raises:
        ValueError: If it is lossy.
        RuntimeError: If a library that reads it is missing.
    """
    need("gguf", "hf")
    whole = need("transformers", "hf").AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return _of_transformers(whole, name=str(file), allow_lossy=allow_lossy)


def load_from_hub(name: str, *, allow_lossy: bool = False) -> HuggingFaceTokenizer:
    """Load "hf:NAME" or "hf:NAME@REVISION" from the Hugging Face hub, or from what an earlier load has kept of it.

    Raises:
        ValueError: If it cannot be had, or is lossy.
        RuntimeError: If the library that loads it is missing.
    """
    auto = need("transformers", "hf").AutoTokenizer
    place, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    try:
        whole = auto.from_pretrained(place, revision=revision or "main")
    except Exception as error:  # the library raises whatever its hub and its readers raise
        raise ValueError(
            f"{name}: the tokenizer cannot be loaded from the Hugging Face hub, nor from what is kept of it here; "
            "check name and connection, or give a folder that holds its tokenizer.json "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error
    return _of_transformers(whole, name=name, allow_lossy=allow_lossy)


def _of_transformers(whole: Any, *, name: str, allow_lossy: bool) -> HuggingFaceTokenizer:
    if not hasattr(whole, "backend_tokenizer"):
        raise ValueError(
            f"{name}: a tokenizer must have a fast form, got {type(whole).__name__}, which has none"
        )
    special = {kind: getattr(whole, f"{kind}_token_id") for kind in _SPECIAL_NAMES}
    known = {kind: token for kind, token in special.items() if token is not None}
    return HuggingFaceTokenizer(whole.backend_tokenizer, name=name, special=known, allow_lossy=allow_lossy)


def _special_ids(directory: Path, backend: Any) -> dict[str, int]:
    ours, theirs = directory / KEPT, directory / "tokenizer_config.json"
    if ours.is_file():
        return read_json(ours)["special"]
    config = read_json(theirs) if theirs.is_file() else {}
    given = {kind: config.get(f"{kind}_token") for kind in _SPECIAL_NAMES}
    named = {kind: t["content"] if isinstance(t, dict) else t for kind, t in given.items() if t}
    ids = {kind: backend.token_to_id(token) for kind, token in named.items()}
    return {kind: token for kind, token in ids.items() if token is not None}


def _find(backend: Any, kind: str) -> int | None:
    ids = (backend.token_to_id(token) for token in _SPECIAL_NAMES[kind])
    return next((i for i in ids if i is not None), None)
