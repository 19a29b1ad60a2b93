"""Product-key addressing as Triton kernels; README.md derives the gradients.

Scores and ids of sub-keys are [S, 2, H, M, k], as in torch.py. Grids have one dimension: the others end at 65,535, and
there may be more streams than that.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from fwpkm.ops.addressing.constants import ENTROPY_EPS
from fwpkm.ops.addressing.find_triton import find_slots_kernel
from fwpkm.ops.addressing.step_triton import pool_kernel, slopes_kernel, step_kernel, towards_kernel
from fwpkm.ops.launch_triton import accumulator, on_device, product_precision

MOST_SLOTS = 32
"""Slots of a head that `find_slots` can find: it holds the square of that many pairs, and of 64 they do not fit."""
_MOST_SCORES = 128
"""Scores of one half that are looked at together; more do not fit the registers."""


def find_slots(
    q: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find the best slots of queries [S, M, H, Dk] in one launch, at most `MOST_SLOTS`.

    Returns:
        Scores and slots [S, M, H, k], best first; the slots' places among the halves' best, and the scores and
        ids of those, [S, 2, H, M, k].
    """
    S, M, H, _ = q.shape
    n, d = keys.shape[-2:]
    q, keys, squares = q.contiguous(), _by_stream(keys), _by_stream(squares)
    best, s = keys.new_empty(S, M, H, topk), keys.new_empty(S, 2, H, M, topk)
    slot = best.new_empty(best.shape, dtype=torch.int64)
    place, i = (s.new_empty(s.shape, dtype=torch.int64) for _ in range(2))
    if not best.numel():
        return best, slot, place, s, i
    blocks = find_blocks(n, d, topk)
    sizes = (M, H, n, d, keys.stride(0), squares.stride(0))
    with on_device(q):
        find_slots_kernel[(triton.cdiv(M, blocks["BM"]) * S * H,)](
            q, keys, squares, best, slot, place, s, i, *sizes,
            K=topk, IDW=score == "idw", ACC=accumulator(keys), PRECISION=product_precision(), **blocks,
        )  # fmt: skip
    return best, slot, place, s, i


def find_blocks(n: int, d: int, topk: int) -> dict[str, int]:
    """Return the block sizes and warps of `find_slots_kernel` that need no spills (docs/performance.md)."""
    KP = triton.next_power_of_2(topk)
    BN = max(16, KP, min(_MOST_SCORES, triton.next_power_of_2(n)))
    return {"KP": KP, "BM": 32 if KP <= 8 else 16, "BN": BN, "BK": 32 if d > 16 else 16, "num_warps": 8}


def step_keys(s: Tensor, i: Tensor, q: Tensor, keys: Tensor, step_size: Tensor, score: str) -> Tensor:
    """Return the sub-keys after the entropy step of the tokens in `s` and `i`, the first ones of q [S, T, H, Dk]."""
    S, _, H, M, K = s.shape
    n, d = keys.shape[-2:]
    s, i, q, keys = s.contiguous(), i.contiguous(), q.contiguous(), keys.contiguous()
    p = _pooled(s, i, n)
    total, c_sum = torch.zeros_like(keys), keys.new_zeros(keys.shape[:-1])
    sizes, how = (M, H, n, d, q.shape[1]), _kinds(K, d, keys, score)
    if s.numel():
        with on_device(q):
            step_kernel[(M * S * 2 * H,)](s, i, p, q, total, c_sum, *sizes, **how)
    if score == "idw":
        total.addcmul_(keys, c_sum[..., None], value=-1)
    return torch.addcmul(keys, total, step_size.view(-1, 1, 1, 1, 1), value=-1)


def backward(
    q: Tensor,
    keys: Tensor,
    place: Tensor,
    s: Tensor,
    i: Tensor,
    d_best: Tensor | None,
    E: Tensor | None,
    score: str,
    step_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of queries and sub-keys, given E = -eta dL/dK' (None: no step); dL/dK' is not in them."""
    S, M, H, _ = q.shape
    n, d = keys.shape[-2:]
    K, idw = s.shape[-1], score == "idw"
    d_best = torch.zeros_like(s) if d_best is None else d_best.contiguous()
    q, keys, s, i, place = (
        q.contiguous(),
        _by_stream(keys),
        s.contiguous(),
        i.contiguous(),
        place.contiguous(),
    )
    dq, total = torch.empty_like(q), keys.new_zeros(keys.shape)
    c_sum, e_sum = keys.new_zeros(2, *keys.shape[:-1])
    p, b, dp = c_sum, c_sum, c_sum  # looked at only after a step
    how = _kinds(K, d, keys, score)
    if E is not None:
        E = E.contiguous()
        p, b, dp = _towards(q, s, i, E, keys, step_tokens, how)
    given = (d_best, place, s, i, p, q, keys, total if E is None else E, b, dp)
    sizes = (M, H, n, d, step_tokens, keys.stride(0))
    if s.numel():
        with on_device(q):
            slopes_kernel[(M * S * 2 * H,)](
                *given, dq, total, c_sum, e_sum, *sizes, STEP=E is not None, **how
            )
    if idw:
        total.addcmul_(keys, c_sum[..., None], value=-1)
    if idw and E is not None:
        total.addcmul_(E, e_sum[..., None], value=-1)
    return dq, total


def _towards(
    q: Tensor, s: Tensor, i: Tensor, E: Tensor, keys: Tensor, step_tokens: int, how: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return p, b = E . ds/dK of the tokens that took part in the step, and dL/dp."""
    S, M, H, _ = q.shape
    n, d = keys.shape[-2:]
    own_s, own_i = (x[..., :step_tokens, :].contiguous() for x in (s, i))
    p, b, dp = _pooled(own_s, own_i, n), torch.empty_like(own_s), keys.new_zeros(S, 2, n)
    across = (keys * E).sum(-1)
    sizes = (step_tokens, H, n, d, M)
    if own_s.numel():
        with on_device(q):
            towards_kernel[(step_tokens * S * 2 * H,)](own_s, own_i, q, E, across, b, dp, *sizes, **how)
    inverse = 1 / (p + ENTROPY_EPS)
    return p, b, dp.mul_(inverse + ENTROPY_EPS * inverse.square())


def _pooled(s: Tensor, i: Tensor, n: int) -> Tensor:
    """Return p, the mean over tokens and heads of the kept scores' softmax, by sub-key: [S, 2, n]."""
    S, _, H, M, K = s.shape
    acc = torch.float64 if s.dtype == torch.float64 else torch.float32
    p = s.new_zeros(S, 2, n, dtype=acc)
    how = {"K": K, "KP": triton.next_power_of_2(K), "ACC": accumulator(s)}
    if s.numel():
        with on_device(s):
            pool_kernel[(M * S * 2 * H,)](s, i, p, M, H, n, **how, num_warps=1)
    return p


def _kinds(K: int, d: int, keys: Tensor, score: str) -> dict[str, Any]:
    KP, BD = triton.next_power_of_2(K), step_block(K, d)
    return {"K": K, "KP": KP, "IDW": score == "idw", "ACC": accumulator(keys), "BD": BD, "num_warps": 4}


def step_block(topk: int, d: int) -> int:
    """Return how many columns of a sub-key the kernels of the key step and of the backward take without spills."""
    return min(triton.next_power_of_2(d), max(1, 2048 // triton.next_power_of_2(topk)), 256)


def _by_stream(x: Tensor) -> Tensor:
    """Return `x` with everything but its streams laid out without gaps; fresh streams share one set of sub-keys."""
    return x if x.shape[0] and x[0].is_contiguous() else x.contiguous()
