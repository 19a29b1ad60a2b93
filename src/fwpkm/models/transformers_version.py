"""Which versions of transformers the packages that need it take."""

import importlib

_OLDEST = (5, 24)
"""The first one whose models call their cache `cache`."""


def require_transformers(where: str) -> None:
    """Raise ImportError, which says what to install, unless there is a transformers new enough for `where`."""
    oldest, install = ".".join(map(str, _OLDEST)), "pip install -U 'fwpkm[hf]'"
    try:
        version = str(importlib.import_module("transformers").__version__)
    except ImportError as error:
        raise ImportError(f"{where} needs transformers {oldest} or newer: {install}") from error
    if tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise ImportError(f"{where} needs transformers {oldest} or newer, found {version}: {install}")
