"""What commands that hold a session have in common: finding the model, and showing progress."""

import sys
import time
from pathlib import Path

from fwpkm.data.tokenizer import Tokenizer, load_tokenizer
from fwpkm.models.base_config import BASE_FILE
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import load_model
from fwpkm.models.shipped import checkpoint_names, find_checkpoint

CHECKPOINT_HELP = f"folder of a trained model, or one that comes with fwpkm: {', '.join(checkpoint_names())}"


def load_reader(name: str, device: str) -> tuple[Decoder, Tokenizer]:
    """Load the model and the tokenizer of a folder that `fwpkm train` exported, or that comes with the package.

    Raises:
        ValueError: If something in the folder is damaged, or there is no tokenizer.
        FileNotFoundError: If there is no such folder, or it holds no model.
    """
    folder = find_checkpoint(name)
    model = _load(folder, device)
    if not any((folder / file).is_file() for file in ("fwpkm_tokenizer.json", "tokenizer.json")):
        raise ValueError(
            f"{folder}: holds no tokenizer; save the one that the model was trained with beside it"
        )
    return model, load_tokenizer(folder)


def _load(folder: Path, device: str) -> Decoder:
    if not (folder / BASE_FILE).is_file():
        return load_model(folder, device)
    from fwpkm.models.attach.folder import load_base_decoder  # transformers is an extra

    return load_base_decoder(folder, device)


def text_of(name: str) -> str:
    """Read a text file in UTF-8; - is standard input.

    Raises:
        ValueError: If it is no such text.
        OSError: If it cannot be read.
    """
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: must be a text in UTF-8, got {error}; convert it first") from error


class ProgressLine:
    """Shows on the terminal how far a reading is, and nothing where the output goes elsewhere."""

    def __init__(self, what: str) -> None:
        self._what, self._start = what, time.monotonic()
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total` tokens."""
        if not self._live:
            return
        filled = 30 * done // max(total, 1)
        rate = done / max(time.monotonic() - self._start, 1e-9)
        bar = "=" * filled + " " * (30 - filled)
        end = "\n" if done >= total else ""
        print(
            f"\r{self._what} [{bar}] {done}/{total} tokens, {rate:.0f}/s",
            end=end,
            file=sys.stderr,
            flush=True,
        )
