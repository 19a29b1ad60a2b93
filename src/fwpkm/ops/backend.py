"""Which form of the operations runs. Only "auto" chooses, and it says what it chose."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "torch", "numba"]
"""torch: plain PyTorch, on any device. numba: compiled loops on the CPU, in float32 and float64."""

logger = logging.getLogger(__name__)
_wanted = "auto"


def set_backend(backend: str) -> None:
    """Choose the form of all operations of this process; "auto" takes the fastest that runs.

    Raises:
        ValueError: If there is no such backend.
        RuntimeError: If it cannot run here; "auto" and "torch" always can.
    """
    global _wanted
    if backend not in get_args(Backend):
        raise ValueError(
            f"set_backend: backend must be one of {', '.join(get_args(Backend))}, got {backend!r}"
        )
    if backend == "numba" and not _has_numba():
        raise RuntimeError("set_backend: backend='numba' needs numba: pip install 'fwpkm[cpu]'")
    _wanted = backend


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Choose the form of all operations of this process for a while."""
    before = _wanted
    set_backend(backend)
    try:
        yield
    finally:
        set_backend(before)


def runs_compiled(x: Tensor) -> bool:
    """Return whether compiled loops are to work on tensors like `x`.

    Raises:
        RuntimeError: If they were asked for by name and cannot.
    """
    if _wanted == "torch":
        return False
    fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if _wanted == "numba" and not fits:
        raise RuntimeError(
            f"backend='numba': compiled loops need float32 or float64 on a CPU, got {x.dtype} on {x.device}; "
            "use backend='auto' or 'torch'"
        )
    return fits and _has_numba()


def runs_compiled_integers(x: Tensor) -> bool:
    """Return whether compiled loops are to do the bookkeeping of slots like `x`, next to whatever does the rest."""
    return _wanted != "torch" and x.device.type == "cpu" and _has_numba()


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    found = importlib.util.find_spec("numba") is not None
    said = (
        "numba (CPU)"
        if found
        else "torch: pip install 'fwpkm[cpu]' brings compiled loops, several times faster"
    )
    logger.info("backend auto -> %s", said)
    return found
