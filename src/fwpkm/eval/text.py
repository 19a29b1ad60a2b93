"""What models are measured on: the novel's held-out part, a corpus, or text files."""

from pathlib import Path

from fwpkm.data.books import novel_documents
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.shards.corpus import open_corpus
from fwpkm.data.tokenizer import Tokenizer


def open_documents(source: str, tokenizer: Tokenizer) -> TokenDocuments:
    """Return documents that no model should have been trained on.

    Args:
        source: "novel", a folder that `fwpkm data build` made, of which the held-out part is taken, or a text
            file in UTF-8.
        tokenizer: The model's.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        ValueError: If a file is empty or no text, or a corpus is of another tokenizer or holds nothing out.
    """
    if source == "novel":
        return novel_documents(tokenizer)[1]
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"{source}: there is no such file or folder; 'novel' is what ships with fwpkm"
        )
    if not path.is_dir():
        return TokenDocuments.from_texts([_text_of(path)], tokenizer, names=[path.name])
    corpus = open_corpus(path)
    corpus.check_tokenizer(tokenizer)
    if not any(shard.split == "held_out" for shard in corpus.manifest.shards):
        raise ValueError(f"{path}: the corpus must hold documents out, got none; build it with --held-out")
    return corpus.documents("held_out")


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
