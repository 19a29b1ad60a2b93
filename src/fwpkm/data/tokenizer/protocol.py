"""What every tokenizer promises."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

KEPT = "fwpkm_tokenizer.json"
"""The file that every saved tokenizer has: which kind it is."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back, exactly.

    `decode(encode(text)) == text`, and text cut anywhere and encoded piece by piece, every piece but the first
    with `continuing=True`, decodes to the whole text.
    """

    @property
    def name(self) -> str:
        """Say in a word or a path which tokenizer this is; `load_tokenizer` understands it."""

    @property
    def vocab_size(self) -> int:
        """Count the ids: all are in [0, vocab_size)."""

    @property
    def bos_id(self) -> int | None:
        """Give the id that opens a text, if there is one. `encode` never adds it."""

    @property
    def eos_id(self) -> int:
        """Give the id that ends a document in token shards. `encode` never adds it."""

    @property
    def pad_id(self) -> int | None:
        """Give the id that fills up, if there is one. `encode` never adds it."""

    @property
    def fingerprint(self) -> str:
        """Hash what decides the ids: equal fingerprints encode equally."""

    def encode(self, text: str, *, continuing: bool = False) -> Int[np.ndarray, " T"]:
        """Turn text into int64 ids, no special ones among them.

        Args:
            text: What to encode; special tokens spelt out in it are plain text.
            continuing: Whether the text goes on from an earlier one, so that no start marker is put in front
                of it (SentencePiece's leading space).

        Raises:
            ValueError: If the text holds something that this tokenizer cannot give back.
        """

    def encode_many(self, texts: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
        """Do the same for many texts, faster than one by one where that is possible."""

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " T"]) -> str:
        """Turn ids into text; special ones leave no trace, broken UTF-8 gives the replacement character."""

    def token_text(self, token: int) -> str:
        """Return the text of one token as it stands inside a text, leading space kept; "" if special."""

    def save(self, directory: Path) -> None:
        """Write what `load_tokenizer(directory)` needs to give the same tokenizer back."""


def fingerprint_of(*parts: bytes) -> str:
    """Hash the parts, order and lengths included, into 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def refuse_surrogates(text: str, where: str) -> None:
    """Raise where a text is not valid Unicode: only bytes can carry that.

    Raises:
        ValueError: With the place of the first lone surrogate.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: the text must be valid Unicode, got the lone surrogate {text[error.start]!r} at character "
            f"{error.start}; decode the file with errors='replace', or use the tokenizer 'bytes'"
        ) from None
