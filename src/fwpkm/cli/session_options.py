"""What commands that hold a session have in common: finding the model and its texts."""

import sys
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
        ValueError: If something in the folder is damaged, or there is no tokenizer, or it is no folder.
        FileNotFoundError: If there is no such folder, or it holds no model.
    """
    if Path(name).is_file():
        raise ValueError(f"{name}: must be the folder of a trained model, got a file")
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
        ValueError: If it is no such text, or an empty one.
        OSError: If it cannot be read.
    """
    if name != "-" and not Path(name).exists():
        raise FileNotFoundError(f"{name}: there is no such file")
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: must be a text in UTF-8, got {error}; convert it first") from error
    if not text.strip():
        raise ValueError(f"{name}: must hold some text, got {len(text)} blank characters")
    if "\0" in text:
        raise ValueError(f"{name}: must be a text, got a zero byte at character {text.index(chr(0))}")
    return text


def check_out(path: str) -> None:
    """Find out whether a file can be written before the reading begins, which takes its time.

    Raises:
        ValueError: If its folder does not exist, or it is a folder itself.
    """
    if not Path(path).parent.is_dir():
        raise ValueError(f"--out: its folder must exist, got {path}; make it first")
    if Path(path).is_dir():
        raise ValueError(f"--out: must be a file, got the folder {path}")
