"""The paper's tokenizer: Mistral's first, of 32,000 ids, from the file that mistral-common carries."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from fwpkm.data.extra import need
from fwpkm.data.tokenizer.protocol import KEPT, fingerprint_of, refuse_surrogates
from fwpkm.files import write_bytes

FILE = "tokenizer.model.v1"
_SPACE_MARK = "\u2581"
_PRIVATE = range(0xE000, 0xF8FF)
_SENTINEL = "\n"


class SentencePieceTokenizer:
    """A SentencePiece model with byte fallback, made exact.

    SentencePiece writes spaces as U+2581 and so takes that character for a space; here it is spelt in bytes.

    Args:
        model: Content of the model file.
        name: What to call it.
    """

    def __init__(self, model: bytes, *, name: str) -> None:
        self.name = name
        self._model = model
        self._processor = need("sentencepiece", "data").SentencePieceProcessor(model_proto=model)
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int | None = _or_none(self._processor.bos_id())
        self.eos_id: int = self._processor.eos_id()
        self.pad_id: int | None = _or_none(self._processor.pad_id())
        self.fingerprint = fingerprint_of(b"sentencepiece", model)
        self._lead = self._ids(_SENTINEL)

    def encode(self, text: str, *, continuing: bool = False) -> Int[np.ndarray, " T"]:
        """Turn text into ids."""
        refuse_surrogates(text, self.name)
        if not (continuing and text):
            return np.asarray(self._ids(text), np.int64)
        ids = self._ids(_SENTINEL + text)
        assert ids[: len(self._lead)] == self._lead, "a line feed never merges with what follows"
        return np.asarray(ids[len(self._lead) :], np.int64)

    def encode_many(self, texts: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
        """Turn many texts into ids."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " T"]) -> str:
        """Turn ids into text."""
        return self._processor.decode([int(i) for i in ids])

    def token_text(self, token: int) -> str:
        """Return the text of one token inside a text."""
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return ""
        if self._processor.is_byte(token):
            return self.decode([token])
        return self._processor.id_to_piece(token).replace(_SPACE_MARK, " ")

    def save(self, directory: Path) -> None:
        """Write the model file and which kind it is."""
        write_bytes(directory / "tokenizer.model", self._model)
        kept = {"kind": "sentencepiece", "name": self.name}
        write_bytes(directory / KEPT, f"{json.dumps(kept)}\n".encode())

    def _ids(self, text: str) -> list[int]:
        if _SPACE_MARK not in text:
            return self._processor.encode(text)
        stand_in = next(chr(c) for c in _PRIVATE if chr(c) not in text)
        ids = self._processor.encode(text.replace(_SPACE_MARK, stand_in))
        return _replace(ids, self._bytes(stand_in), self._bytes(_SPACE_MARK))

    def _bytes(self, character: str) -> list[int]:
        return [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in character.encode()]


def load_mistral() -> SentencePieceTokenizer:
    """Load the 32,000 ids from the installed package mistral-common, without importing it.

    Raises:
        RuntimeError: If the package or its file is missing.
    """
    spec = importlib.util.find_spec("mistral_common")
    places = list(spec.submodule_search_locations or []) if spec else []
    file = next((f for p in places if (f := Path(p) / "data" / FILE).is_file()), None)
    if file is None:
        raise RuntimeError(
            f"the tokenizer 'mistral' needs {FILE} of mistral-common; pip install 'fwpkm[data]'"
        )
    return SentencePieceTokenizer(file.read_bytes(), name="mistral")


def _or_none(token: int) -> int | None:
    return token if token >= 0 else None


def _replace(ids: list[int], old: list[int], new: list[int]) -> list[int]:
    out: list[int] = []
    at = 0
    while at < len(ids):
        found = ids[at : at + len(old)] == old
        out += new if found else ids[at : at + 1]
        at += len(old) if found else 1
    return out
