"""What models are measured on: the novel's held-out part, a corpus, or text files."""

import sysconfig
from pathlib import Path

from fwpkm.data.books import novel_documents
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.shards.corpus import open_corpus
from fwpkm.data.tokenizer import Tokenizer

_LARGE_BYTES = 40_000
"""Modules of the standard library that are so large count as documents."""


def open_documents(source: str, tokenizer: Tokenizer) -> TokenDocuments:
    """Return documents to measure models on, which they should not have been trained on (`seen_among` asks).

    Args:
        source: "novel", "python" (the larger modules of this Python's standard library, each a document), a
            folder that `fwpkm data build` made, of which the held-out part is taken, or a text file in UTF-8.
        tokenizer: The model's.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        ValueError: If a file is empty or no text, or a corpus is of another tokenizer or holds nothing out.
    """
    if source == "novel":
        return novel_documents(tokenizer)[1]
    if source == "python":
        return _standard_library(tokenizer)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"{source}: there is no such file or folder; 'novel' ships with fwpkm, 'python' with Python"
        )
    if not path.is_dir():
        return TokenDocuments.from_texts([_text_of(path)], tokenizer, names=[path.name])
    corpus = open_corpus(path)
    corpus.check_tokenizer(tokenizer)
    if not any(shard.split == "held_out" for shard in corpus.manifest.shards):
        raise ValueError(f"{path}: the corpus must hold documents out, got none; build it with --held-out")
    return corpus.documents("held_out")


def _standard_library(tokenizer: Tokenizer) -> TokenDocuments:
    """Read Python's own sources: another domain than prose that is at hand wherever fwpkm runs."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(folder.glob("*.py")) if path.stat().st_size >= _LARGE_BYTES]
    if not files:
        raise FileNotFoundError(
            f"python: {folder} must hold the standard library's sources, got none of {_LARGE_BYTES} bytes or more"
        )
    texts = [path.read_text(encoding="utf-8") for path in files]
    return TokenDocuments.from_texts(texts, tokenizer, names=[path.name for path in files])


def _text_of(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be a text in UTF-8, got {error}; convert it first") from error
    if not text.strip():
        raise ValueError(f"{path}: must hold some text, got an empty file")
    if "\0" in text:
        raise ValueError(f"{path}: must be a text, got a zero byte at character {text.index(chr(0))}")
    return text
