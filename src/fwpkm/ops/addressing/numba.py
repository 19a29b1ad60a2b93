"""Product-key addressing as compiled CPU loops around torch's matrix product; README.md derives the gradients.

Scores and ids of sub-keys are [S, 2, H, M, k], as in torch.py.
"""

import torch
from torch import Tensor

from fwpkm.ops.addressing import loops
from fwpkm.ops.addressing.constants import ENTROPY_EPS
from fwpkm.ops.lanes import VECTOR_BYTES
from fwpkm.ops.threads import run_spans, split_range

_FEWEST_NUMBERS = 1 << 20
"""Numbers to add up that are worth a thread."""
_SIFTING = 8
"""Numbers that could be added up while one score is sifted."""


def find_slots(
    x: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find the best slots of half queries `x` [S, 2, H, M, d] among sub-keys [S, 2, H, n, d], |K|^2 [S, 2, H, n].

    Returns:
        Scores and slots [S, M, H, k], best first; the slots' places among the halves' best, and the scores and
        ids of those, [S, 2, H, M, k].
    """
    (S, _, H, M, d), n = x.shape, keys.shape[3]
    s = x.new_empty(S, 2, H, M, topk)
    place, i = (x.new_empty(s.shape, dtype=torch.int64) for _ in range(2))
    best, slot = s.new_empty(S, M, H, topk), i.new_empty(S, M, H, topk)
    lanes = VECTOR_BYTES // x.element_size()
    few_blocks = max(1, _FEWEST_NUMBERS // (2 * lanes * n * (d + _SIFTING)))
    spans = split_range(S * H * -(-M // lanes), smallest=few_blocks)
    run_spans(loops.find_slots, spans, x, keys, squares, score == "idw", s, i, best, slot, place)
    return best, slot, place, s, i


def step_keys(s: Tensor, i: Tensor, x: Tensor, keys: Tensor, step_size: Tensor, score: str) -> Tensor:
    """Return the sub-keys after the entropy step of the tokens in `s` and `i`, the first ones of x [S, 2, H, M, d]."""
    P, z, _ = _entropy(s, i, keys)
    c = torch.empty_like(P)
    run_spans(loops.pull, _tokens(s, s.shape[-1]), s, i, P, z, score == "idw", c)
    total, c_sum = _spread(c, i, x, keys)
    if score == "idw":
        total.addcmul_(keys, c_sum[..., None], value=-1)
    return torch.addcmul(keys, total, step_size.view(-1, 1, 1, 1, 1), value=-1)


def read_backward(
    x: Tensor, keys: Tensor, place: Tensor, s: Tensor, i: Tensor, d_best: Tensor | None, score: str
) -> tuple[Tensor, Tensor]:
    """Return the gradients of queries [S, M, H, Dk] and sub-keys where no key step was taken."""
    ds, c, dq, idw = _scattered(d_best, place, s), torch.empty_like(s), _like_queries(x), score == "idw"
    run_spans(loops.read_gradients, _tokens(s, _row_numbers(s, x)), 0, ds, s, i, x, keys, idw, c, dq)
    total, c_sum = _spread(c, i, x, keys)
    return dq, total.addcmul_(keys, c_sum[..., None], value=-1) if idw else total


def step_backward(
    x: Tensor,
    keys: Tensor,
    place: Tensor,
    s: Tensor,
    i: Tensor,
    d_best: Tensor | None,
    E: Tensor,
    score: str,
    step_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Do the same after a step of the first tokens, given E = -eta dL/dK'; dL/dK' itself is not in it."""
    idw, each = score == "idw", _row_numbers(s, x)
    ds, c, dq = _scattered(d_best, place, s), torch.empty_like(s), _like_queries(x)
    own_s, own_i = s[..., :step_tokens, :].contiguous(), i[..., :step_tokens, :].contiguous()
    P, z, slope = _entropy(own_s, own_i, keys)
    b, e, own = torch.empty_like(P), torch.empty_like(P), _tokens(P, each)
    across = (keys * E).sum(-1)
    dp = x.new_zeros(len(own), keys.shape[0], 2, keys.shape[-2])
    run_spans(loops.towards, own, own_s, own_i, x, E, across, P, z, idw, b, dp)
    dp = dp.sum(0) * slope
    own = _tokens(P, 4 * each)
    run_spans(loops.step_gradients, own, own_s, own_i, x, keys, E, P, z, b, dp, idw, ds, c, e, dq)
    run_spans(loops.read_gradients, _tokens(s, each), step_tokens, ds, s, i, x, keys, idw, c, dq)
    total, c_sum = _spread(c, i, x, keys)
    if idw:
        total.addcmul_(keys, c_sum[..., None], value=-1)
        total.addcmul_(E, _sums(e, own_i, keys)[..., None], value=-1)
    return dq, total


def _tokens(s: Tensor, numbers: int) -> list[tuple[int, int]]:
    """Share out the tokens of scores [S, 2, H, M, k], each of which adds up so many numbers."""
    return split_range(s[:, 0, ..., 0].numel(), smallest=max(1, _FEWEST_NUMBERS // numbers))


def _row_numbers(s: Tensor, x: Tensor) -> int:
    return s.shape[-1] * x.shape[-1]


def _like_queries(x: Tensor) -> Tensor:
    S, _, H, M, d = x.shape
    return x.new_empty(S, M, H, 2 * d)


def _scattered(d_best: Tensor | None, place: Tensor, s: Tensor) -> Tensor:
    ds = torch.zeros_like(s)
    if d_best is not None:
        run_spans(loops.scatter, _tokens(s, s.shape[-1]), d_best, place, ds)
    return ds


def _entropy(s: Tensor, i: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows' softmax P, and  phi(p)  and  phi'(p)  of every sub-key, [S, 2, n]."""
    S, _, H, M, _ = s.shape
    spans, P = _tokens(s, s.shape[-1]), torch.empty_like(s)
    parts = s.new_zeros(len(spans), S, 2, keys.shape[-2])
    run_spans(loops.pool, spans, s, i, P, parts)
    p = parts.sum(0) / (H * M)
    inverse = 1 / (p + ENTROPY_EPS)
    return P, torch.log(p + ENTROPY_EPS) + p * inverse, inverse + ENTROPY_EPS * inverse.square()


def _spread(c: Tensor, i: Tensor, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Add up, per sub-key,  sum_t c_t q_t  and  sum_t c_t."""
    S, _, H, _, d = keys.shape
    total, c_sum = torch.zeros_like(keys, memory_format=torch.contiguous_format), _sums(c, i, keys)
    items = S * 2 * H * -(-d // loops.COLUMNS)
    spans = split_range(items, smallest=max(1, _FEWEST_NUMBERS * items // (2 * c.numel() * d + 1)))
    run_spans(loops.spread, spans, c, i, x, total)
    return total, c_sum


def _sums(c: Tensor, i: Tensor, keys: Tensor) -> Tensor:
    total = c.new_zeros(keys.shape[:-1])
    run_spans(loops.per_key_sum, [(0, total[..., 0].numel())], c, i, total)
    return total
