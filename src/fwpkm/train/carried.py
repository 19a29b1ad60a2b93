"""What streams carry from batch to batch, to memory files and back."""

from collections.abc import Sequence
from pathlib import Path

from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder

# The checkpoint around these files vouches for the weights; hashing the base tables again would cost seconds.
_OWNER = Fingerprint(config={}, weights={})


def save_carried(folder: Path, rank: int, carried: Sequence[DecoderCache | None]) -> None:
    """Write what one process's streams have seen, part by part."""
    for part, cache in enumerate(carried):
        if cache is not None:
            cache.save(_file(folder, rank, part, len(carried)), _OWNER)


def load_carried(folder: Path, rank: int, model: Decoder, parts: int) -> list[DecoderCache | None]:
    """Read it back, over the model's own base tables.

    Raises:
        ValueError: If it was cut into another number of parts.
    """
    wanted = [_file(folder, rank, part, parts) for part in range(parts)]
    others = set(folder.glob(f"carried-{rank}-*")) - set(wanted)
    if others:
        raise ValueError(
            f"load_carried: train.accumulate must be as in the checkpoint, whose memories are in "
            f"{min(others).name}, got accumulate={parts}; set it back, or start a new run from the exported model"
        )
    return [DecoderCache.load(file, model, fingerprint=_OWNER) if file.exists() else None for file in wanted]


def _file(folder: Path, rank: int, part: int, parts: int) -> Path:
    return folder / f"carried-{rank}-{part}of{parts}.memory"
