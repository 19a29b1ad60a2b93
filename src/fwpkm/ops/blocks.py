"""Large CPU blocks that are used again, as CUDA's caching allocator does on a GPU.

The C library returns every block above 32 MiB to the system when it is freed (smaller ones too, where many lie
together: `keep_freed_memory`), and the system clears and maps each of its pages anew at the next first touch. For
the scan's tables, that alone cost as much as the scan (docs/performance.md).
"""

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 20
_MOST_FREE_BYTES = 1 << 30
_PAGE = 4096
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": (-1, _MOST_FREE_BYTES), "MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20)}
"""Options of glibc's malloc, by the environment's name: their number in malloc.h, and what they are set to."""

_lock = threading.Lock()
_free: list[np.ndarray] = []
_most_free_bytes = _MOST_FREE_BYTES


def large_empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised tensor of `like`'s dtype and device, in a recycled block where that helps."""
    count = int(np.prod(shape, dtype=np.int64))
    if (
        like.device.type != "cpu"
        or like.dtype not in _NUMPY_DTYPES
        or count * like.element_size() < _SMALLEST
    ):
        return like.new_empty(shape)
    keep_freed_memory()
    block = _take(count * like.element_size())
    view = block[: count * like.element_size()].view(_NUMPY_DTYPES[like.dtype]).reshape(shape)
    weakref.finalize(view, _give_back, block)  # runs once no tensor holds the view's memory
    x = torch.from_numpy(view)
    return x if x.dtype == like.dtype else x.view(like.dtype)


@contextmanager
def keeping_blocks(num_bytes: int) -> Iterator[None]:
    """Keep up to so many bytes of free blocks for a while, instead of 1 GiB."""
    global _most_free_bytes
    before, _most_free_bytes = _most_free_bytes, num_bytes
    try:
        yield
    finally:
        _most_free_bytes = before
        with _lock:
            _shrink()


def release_blocks() -> None:
    """Hand all free blocks back to the system."""
    with _lock:
        _free.clear()


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let the C library keep what is freed, up to 1 GiB, instead of handing it back to the system.

    A training step frees all that it kept at its end, and glibc would hand that back, for the next step's first touch
    to have it cleared and mapped again: an eighth of a small model's step (docs/performance.md). Changes the process's
    allocator, unless its user has set MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_; does nothing where the C
    library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or _MALLOPT.keys() & os.environ.keys():
        return
    for option, num_bytes in _MALLOPT.values():
        mallopt(option, num_bytes)


def _take(num_bytes: int) -> np.ndarray:
    with _lock:
        fitting = [i for i, block in enumerate(_free) if num_bytes <= block.nbytes <= 2 * num_bytes]
        if fitting:
            return _free.pop(min(fitting, key=lambda i: _free[i].nbytes))
    size = -(-num_bytes // _SMALLEST) * _SMALLEST
    block = np.empty(size + _PAGE, dtype=np.uint8)
    start = -block.ctypes.data % _PAGE  # rows of blocks that begin anywhere lie across lines of the cache
    return block[start : start + size]


def _give_back(block: np.ndarray) -> None:
    with _lock:
        _free.append(block)
        _shrink()


def _shrink() -> None:
    while sum(block.nbytes for block in _free) > _most_free_bytes:
        _free.pop(0)


_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.int16}
