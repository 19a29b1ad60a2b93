"""Gathers that need no intermediate tensor of the size pairs x width, and room for large results."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def gathered_sum(
    w: Float[Tensor, "M k"], ids: Int[Tensor, "M k"], rows: Float[Tensor, "R D"]
) -> Float[Tensor, "M D"]:
    """Add up  sum_j w_j rows[ids_j]  for every token."""
    return F.embedding_bag(ids, rows, per_sample_weights=w, mode="sum")


def gathered_inner(
    x: Float[Tensor, "M D"], rows: Float[Tensor, "R D"], ids: Int[Tensor, "M k"]
) -> Float[Tensor, "M k"]:
    """Take the inner products  x . rows[ids_j]  of every token with its own rows."""
    M, k = ids.shape
    bag = torch.arange(M, device=ids.device)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x, rows, ids.flatten(), bag * k, bag.repeat_interleave(k), 0
    ).view(M, k)


def segment_sum(
    w: Float[Tensor, " P"], tokens: Int[Tensor, " P"], starts: Int[Tensor, " U"], x: Float[Tensor, "M D"]
) -> Float[Tensor, "U D"]:
    """Add up  sum w x[tokens]  over each run of pairs; run u goes from starts[u] to starts[u + 1]."""
    return F.embedding_bag(tokens, x, starts, per_sample_weights=w, mode="sum")


_HUGE_PAGE_BYTES = 2 << 20
"""Linux's usual huge page; smaller blocks are recycled by the allocator and gain nothing."""


def large_empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return `torch.empty` for a block that is written at once and may be large.

    On a CPU, NumPy asks the kernel for huge pages, which makes first use of a fresh block 2 to 4 times
    cheaper than through PyTorch's allocator (docs/performance.md).
    """
    itemsize = like.element_size()
    if like.device.type != "cpu" or like.dtype not in _NUMPY_DTYPES:
        return like.new_empty(shape)
    if itemsize * int(np.prod(shape)) < _HUGE_PAGE_BYTES:
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, dtype=_NUMPY_DTYPES[like.dtype]))


_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
