"""Tensors that follow from numbers of Python's alone, made on the device once and kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])
_keepers: list[list[Tensor]] = []


def kept(make: F) -> F:
    """Make what `make` returns, one tensor or several, once for the same arguments; nobody may edit it."""
    cached = lru_cache(maxsize=64)(make)

    @wraps(make)
    def choose(*args: Any) -> Any:
        if torch.compiler.is_compiling() or _is_faked() or (not _keepers and _is_captured()):
            return make(*args)
        with torch.inference_mode(False):  # training may use it next
            found = cached(*args)
        for keeper in _keepers:
            keeper.extend((found,) if isinstance(found, Tensor) else found)
        return found

    return choose  # type: ignore[return-value]  # the same arguments


@contextmanager
def keeping_lists() -> Iterator[list[Tensor]]:
    """Collect what is asked for meanwhile: a CUDA graph reads it where it lies, however long it lives."""
    held: list[Tensor] = []
    _keepers.append(held)
    try:
        yield held
    finally:
        _keepers[:] = [keeper for keeper in _keepers if keeper is not held]


def _is_faked() -> bool:
    """Return whether tensors that are made now have no numbers (FakeTensorMode)."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


def _is_captured() -> bool:
    """Return whether a CUDA graph is recorded: it would read what is kept here for longer than that is kept."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
