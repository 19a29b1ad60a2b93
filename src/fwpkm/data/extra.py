"""Libraries that only some of the data functions need."""

import importlib
from types import ModuleType


def need(module: str, extra: str) -> ModuleType:
    """Import a library, or say how to install it.

    Raises:
        RuntimeError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        raise RuntimeError(
            f"this needs the package {module.split('.')[0]!r}, which is not installed; pip install 'fwpkm[{extra}]'"
        ) from None
