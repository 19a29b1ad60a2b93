"""How the Triton kernels are launched: block sizes, precision, device."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_COLUMNS = 1024
"""Columns of a row that one program takes."""
_TILE = 4096
"""Numbers of a tile, pairs x columns: 32 a thread with four warps."""


def accumulator(x: Tensor) -> Any:
    """Return what kernels compute in: float32, and float64 for float64."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of `x` the one that kernels are launched on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def column_block(width: int) -> int:
    """Return how many columns a program takes of rows so wide; a power of two."""
    return min(MOST_COLUMNS, triton.next_power_of_2(width))


def pair_block(pairs: int, columns: int) -> int:
    """Return how many pairs a program looks at together; a power of two."""
    return max(1, min(triton.next_power_of_2(pairs), _TILE // columns))


def product_precision() -> str:
    """Follow PyTorch's settings of float32 products on CUDA: exact, unless the user says otherwise.

    `torch.set_float32_matmul_precision("high")` is three TF32 products, "medium" one. One is also what
    `torch.backends.cuda.matmul.fp32_precision = "tf32"` asks for.
    """
    newest = getattr(
        torch.backends.cuda.matmul, "fp32_precision", None
    )  # since PyTorch 2.9; the others set it too
    if newest not in (None, "tf32"):
        return "ieee"
    kinds = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}
    try:
        return kinds[torch.get_float32_matmul_precision()]
    except RuntimeError:  # set by its new name alone
        return "tf32"


def adds_in_order() -> bool:
    """Return whether sums into shared rows must be reproducible (torch.use_deterministic_algorithms)."""
    return torch.are_deterministic_algorithms_enabled()


def num_multiprocessors(x: Tensor) -> int:
    """Return how many multiprocessors the device of `x` has; 1 where kernels are interpreted."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
