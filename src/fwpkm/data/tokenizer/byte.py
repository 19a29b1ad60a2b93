"""Bytes as tokens: nothing to train, nothing to lose."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from fwpkm.data.tokenizer.protocol import KEPT, fingerprint_of
from fwpkm.files import write_bytes, write_json

SPECIAL = {"pad": 256, "bos": 257, "eos": 258}


class ByteTokenizer:
    """Every byte of the UTF-8 is its own id; 256, 257 and 258 are padding, begin and end."""

    name = "bytes"
    vocab_size = 259
    bos_id = SPECIAL["bos"]
    eos_id = SPECIAL["eos"]
    pad_id = SPECIAL["pad"]
    fingerprint = fingerprint_of(b"fwpkm bytes", json.dumps(SPECIAL).encode())

    def encode(self, text: str, *, continuing: bool = False) -> Int[np.ndarray, " T"]:
        """Return the bytes; lone surrogates, which UTF-8 forbids, are carried in three bytes each."""
        return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64)

    def encode_many(self, texts: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
        """Return the bytes of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " T"]) -> str:
        """Return the text of the ids below 256."""
        values = np.asarray(ids, np.int64)
        raw = values[(values >= 0) & (values < 256)].astype(np.uint8).tobytes()
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        """Return the character of an ASCII byte, the replacement character for other bytes."""
        return self.decode([token])

    def save(self, directory: Path) -> None:
        """Write the one word that says it all."""
        write_bytes(directory / KEPT, b'{"kind": "bytes"}\n')

    def save_for_transformers(self, directory: Path) -> None:
        """Write what transformers' AutoTokenizer reads: byte-level BPE without any merge, which gives the same ids."""
        added = [
            {"id": i, "content": _marker(name), "special": True, **_PLAIN} for name, i in SPECIAL.items()
        ]
        tokenizer = {
            "version": "1.0",
            "added_tokens": added,
            "pre_tokenizer": {"type": "ByteLevel", **_AS_IS},
            "decoder": {"type": "ByteLevel", **_AS_IS},
            "model": {"type": "BPE", "vocab": {_letter(byte): byte for byte in range(256)}, "merges": []},
        }
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 10**9,
            "clean_up_tokenization_spaces": False,
            **{f"{name}_token": _marker(name) for name in SPECIAL},
        }
        for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
            write_json(directory / name, content)


_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
_AS_IS = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def _marker(name: str) -> str:
    return f"<|{name}|>"


def _letter(byte: int) -> str:
    """Return the letter that stands for a byte in byte-level BPE: itself if it is printable Latin-1."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in printable].index(byte))
