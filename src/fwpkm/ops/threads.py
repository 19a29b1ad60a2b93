"""Run compiled kernels on as many threads as torch may use."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

Span = tuple[int, int]


def split_range(num_items: int, *, smallest: int = 1) -> list[Span]:
    """Cut range(num_items) into spans of almost equal length, one a thread, of at least `smallest` items."""
    parts = max(1, min(torch.get_num_threads(), num_items // smallest))
    edges = [num_items * i // parts for i in range(parts + 1)]
    return list(pairwise(edges))


def run_spans(kernel: Callable[..., object], spans: Sequence[Span], *args: Any) -> None:
    """Call kernel(first, last, part, *args) for all spans side by side; tensors go in as arrays.

    Args:
        kernel: Must let go of the interpreter's lock, and write nowhere that another span's call does.
        spans: The first and last items of each call; `part` counts them.
        args: Handed to every call.
    """
    arrays = [array_of(x) if isinstance(x, Tensor) else x for x in args]
    waiting = [
        _pool(os.getpid()).submit(kernel, first, last, part, *arrays)
        for part, (first, last) in enumerate(spans[1:], start=1)
    ]
    try:
        kernel(*spans[0], 0, *arrays)
    finally:
        for future in waiting:
            future.result()


def array_of(x: Tensor) -> np.ndarray:
    """Return a contiguous array of a CPU tensor's numbers; it shares memory where the tensor is contiguous."""
    return x.detach().contiguous().numpy()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return this process's threads: those of a parent do not survive a fork."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="fwpkm")
