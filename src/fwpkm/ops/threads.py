"""Run compiled kernels on torch's own threads.

A second set of threads would be slower than none: OpenMP's go on spinning for a while after every operation of
torch, on the very cores that the others wait for (docs/performance.md).
"""

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
    return list(pairwise(num_items * i // parts for i in range(parts + 1)))


def run_range(kernel: Callable[..., object], num_items: int, *args: Any, smallest: int) -> None:
    """Call kernel(first, last, part, *args) for a whole range, cut by `split_range`."""
    if num_items < 2 * smallest:  # as `split_range` would find, in less time than a token's norm takes
        kernel(0, num_items, 0, *_arrays(args))
    else:
        run_spans(kernel, split_range(num_items, smallest=smallest), *args)


def run_spans(kernel: Callable[..., object], spans: Sequence[Span], *args: Any) -> None:
    """Call kernel(first, last, part, *args) for all spans side by side; tensors go in as arrays.

    Args:
        kernel: Compiled loops, free of the interpreter's lock; must write nowhere that another span's call does.
        spans: The first and last items of each call; `part` counts them.
        args: Handed to every call.
    """
    arrays = _arrays(args)
    if len(spans) == 1:
        kernel(*spans[0], 0, *arrays)
    elif spans and _has_team(os.getpid()):
        from fwpkm.ops.fork import forked

        forked(kernel)(np.array(spans), *arrays)
    elif spans:
        pool = _pool(os.getpid())
        calls = [pool.submit(kernel, *span, part, *arrays) for part, span in enumerate(spans)]
        for call in calls:
            call.result()


def drive(driver: Callable[..., int], *args: Any) -> None:
    """Call a function that runs several compiled loops by `side_by_side`; compiled itself where that can be.

    Args:
        driver: Written so that numba can compile it; uses no other function of Python's but compiled loops. Returns
            what `side_by_side` returned, all of it or'ed together.
        args: Handed to it; tensors go in as arrays.
    """
    arrays = _arrays(args)
    if _has_team(os.getpid()):
        from fwpkm.ops.fork import compiled

        driver = compiled(driver)
    if driver(*arrays):
        raise RuntimeError("a compiled loop raised an error on one of its threads")


def side_by_side(kernel: Callable[..., object], spans: np.ndarray, args: tuple[Any, ...]) -> int:
    """Call kernel(first, last, part, *args) for all spans [P, 2] side by side; for functions that `drive` calls.

    Returns:
        Zero. A compiled function has another `side_by_side`, which returns something else if a call raised an error.
    """
    run_spans(kernel, [(first, last) for first, last in spans.tolist()], *args)
    return 0


def array_of(x: Tensor) -> np.ndarray:
    """Return a contiguous array of a CPU tensor's numbers; it shares memory where the tensor is contiguous.

    NumPy has no bfloat16: such numbers come as the uint16 of their bits, which `fwpkm.ops.rows.wide` reads.
    """
    x = (x.detach() if x.requires_grad else x).contiguous()
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


def array_of_weight(weight: Tensor) -> np.ndarray:
    """Return a parameter's numbers, copied where several processes share models.

    FSDP2 frees the weights that it gathered, and what NumPy has looked at can no longer be freed.
    """
    shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    return array_of(weight.detach().clone() if shared else weight)


def _arrays(args: Sequence[Any]) -> list[Any]:
    return [array_of(x) if isinstance(x, Tensor) else x for x in args]


@lru_cache(maxsize=1)
def _has_team(process: int) -> bool:
    """Return whether compiled loops can enter torch's team; it does not survive a fork, so a child has none."""
    if process != _FIRST_PROCESS:
        return False
    from fwpkm.ops.fork import works

    return works()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return this process's threads: those of a parent do not survive a fork."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="fwpkm")


_FIRST_PROCESS = os.getpid()
