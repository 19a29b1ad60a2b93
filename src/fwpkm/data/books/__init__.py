"""The novel that ships with the package: Jane Austen's Emma (public domain; see SOURCE.md beside this file)."""

import gzip
import re
from importlib.resources import files

from fwpkm.data.documents import TokenDocuments
from fwpkm.data.tokenizer.protocol import Tokenizer

HELD_OUT = 0.2


def load_novel() -> str:
    """Return the whole text."""
    return gzip.decompress(files(__name__).joinpath("emma.txt.gz").read_bytes()).decode("ascii")


def novel_parts() -> tuple[str, str]:
    """Cut the novel where a chapter begins: about the first 80% to train on, the rest to test on."""
    text = load_novel()
    chapters = [match.start() for match in re.finditer(r"^CHAPTER ", text, re.MULTILINE)]
    cut = min(chapters, key=lambda place: abs(place - (1 - HELD_OUT) * len(text)))
    return text[:cut], text[cut:]


def novel_documents(tokenizer: Tokenizer) -> tuple[TokenDocuments, TokenDocuments]:
    """Return both parts as tokens: for training, and held out."""
    train, held_out = novel_parts()
    return (
        TokenDocuments.from_texts([train], tokenizer, names=["Emma, first part"]),
        TokenDocuments.from_texts([held_out], tokenizer, names=["Emma, last part"]),
    )
