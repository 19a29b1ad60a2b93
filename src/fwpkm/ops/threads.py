"""Run compiled kernels on torch's own threads.

A second set of threads would be slower than none: OpenMP's go on spinning for a while after every operation of
torch, on the very cores that the others wait for (docs/performance.md).
"""

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Span = tuple[int, int]
_Task = Callable[[int], object]


def split_range(num_items: int, *, smallest: int = 1) -> list[Span]:
    """Cut range(num_items) into spans of almost equal length, one a thread, of at least `smallest` items."""
    parts = max(1, min(torch.get_num_threads(), num_items // smallest))
    return list(pairwise(num_items * i // parts for i in range(parts + 1)))


def run_spans(kernel: Callable[..., object], spans: Sequence[Span], *args: Any) -> None:
    """Call kernel(first, last, part, *args) for all spans side by side; tensors go in as arrays.

    Args:
        kernel: Must let go of the interpreter's lock, and write nowhere that another span's call does.
        spans: The first and last items of each call; `part` counts them.
        args: Handed to every call.
    """
    arrays = [array_of(x) if isinstance(x, Tensor) else x for x in args]
    if not spans:
        return
    if len(spans) == 1:
        kernel(*spans[0], 0, *arrays)
        return
    errors: list[BaseException] = []

    def task(part: int) -> None:
        try:
            kernel(*spans[part], part, *arrays)
        except BaseException as error:  # it must not pass through foreign code
            errors.append(error)

    _run(task, len(spans))
    if errors:
        raise errors[0]


def array_of(x: Tensor) -> np.ndarray:
    """Return a contiguous array of a CPU tensor's numbers; it shares memory where the tensor is contiguous.

    NumPy has no bfloat16: such numbers come as the uint16 of their bits, which `fwpkm.ops.rows.wide` reads.
    """
    x = x.detach().contiguous()
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


def _run(task: _Task, count: int) -> None:
    """Run tasks 0 to count - 1 at once."""
    team = _openmp(os.getpid())
    if team is None:
        list(_pool(os.getpid()).map(task, range(count)))
    else:
        team.run(task, count)


class _OpenMP:
    """The OpenMP runtime that torch has loaded, entered as compilers do."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._parallel = self._library.GOMP_parallel
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def run(self, task: _Task, count: int) -> None:
        """Run tasks 0 to count - 1 on one team; it may be smaller than asked for."""

        def member(_: int | None) -> None:
            first, size = self._library.omp_get_thread_num(), self._library.omp_get_num_threads()
            for number in range(first, count, size):
                task(number)

        self._parallel(self._callback(member), None, ctypes.c_uint(count), ctypes.c_uint(0))


@lru_cache(maxsize=1)
def _openmp(process: int) -> _OpenMP | None:
    """Find GNU's runtime in torch's own folder; it does not survive a fork, so a child has none."""
    path = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    if not sys.platform.startswith("linux") or process != _FIRST_PROCESS or not path.exists():
        return None
    return _OpenMP(path)


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return this process's threads: those of a parent do not survive a fork."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="fwpkm")


_FIRST_PROCESS = os.getpid()
