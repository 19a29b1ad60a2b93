"""Which texts a model was trained on, where its folder says so."""

from collections.abc import Iterable
from pathlib import Path

from fwpkm.files import read_json

SEEN = "seen.json"
"""In a model's folder: a list of texts, named as `fwpkm eval --text` takes them, of which all was trained on."""


def seen_among(texts: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Return those of `texts` that the model in `folder` was trained on; a folder without the file names none.

    Raises:
        ValueError: If the file is no list of names.
    """
    path = folder / SEEN
    if not path.exists():
        return ()
    seen = read_json(path)
    if not isinstance(seen, list) or not all(isinstance(name, str) for name in seen):
        raise ValueError(f"{path}: must be a list of names of texts, got {seen!r}")
    return tuple(dict.fromkeys(text for text in texts if text in seen))
