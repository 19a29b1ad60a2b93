"""Trained models that come with the package, by their short names."""

from pathlib import Path

from fwpkm.nested import unknown_name

_SHIPPED = (Path(__file__).parents[1] / "checkpoints", Path(__file__).parents[3] / "checkpoints")
"""Where they lie: in an installed package, in a checkout."""


def checkpoint_names() -> list[str]:
    """List the models that come with the package."""
    return sorted(folder.name for place in _SHIPPED for folder in place.glob("*/") if folder.is_dir())


def find_checkpoint(name: str | Path) -> Path:
    """Return the folder that a path, or the short name of a model that comes with the package, means.

    Raises:
        FileNotFoundError: If there is none, with the nearest short name.
    """
    for folder in (Path(name), *(place / name for place in _SHIPPED)):
        if folder.is_dir():
            return folder
    known = unknown_name("model", str(name), checkpoint_names())
    raise FileNotFoundError(
        f"{known}; give a folder that fwpkm train exported, or a model that comes with fwpkm"
    )
