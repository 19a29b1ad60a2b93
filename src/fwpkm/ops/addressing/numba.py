"""Product-key addressing as compiled CPU loops around torch's matrix product; README.md derives the gradients.

Scores and ids of sub-keys are [S, 2, H, M, k], as in torch.py.
"""

import torch
from torch import Tensor

from fwpkm.ops.addressing import loops
from fwpkm.ops.addressing.constants import ENTROPY_EPS
from fwpkm.ops.lanes import VECTOR_BYTES
from fwpkm.ops.threads import run_range, run_spans, split_range

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
    given = (x, keys, squares, score == "idw", s, i, best, slot, place)
    run_range(loops.find_slots, S * H * -(-M // lanes), *given, smallest=few_blocks)
    return best, slot, place, s, i


def step_keys(s: Tensor, i: Tensor, x: Tensor, keys: Tensor, step_size: Tensor, score: str) -> Tensor:
    """Return the sub-keys after the entropy step of the tokens in `s` and `i`, the first ones of x [S, 2, H, M, d]."""
    P, z, _ = _entropy(s, i, keys)
    c = torch.empty_like(P)
    run_range(loops.pull, _num_tokens(s), s, i, P, z, score == "idw", c, smallest=_few(s.shape[-1]))
    total, c_sum = _spread(c, i, x, keys)
    if score == "idw":
        total.addcmul_(keys, c_sum[..., None], value=-1)
    return torch.addcmul(keys, total, step_size.view(-1, 1, 1, 1, 1), value=-1)


def read_backward(
    x: Tensor, keys: Tensor, place: Tensor, s: Tensor, i: Tensor, d_best: Tensor | None, score: str
) -> tuple[Tensor, Tensor]:
    """Return the gradients of queries [S, M, H, Dk] and sub-keys where no key step was taken."""
    ds, c, dq, idw = _scattered(d_best, place, s), torch.empty_like(s), _like_queries(x), score == "idw"
    few = _few(_row_numbers(s, x))
    run_range(loops.read_gradients, _num_tokens(s), 0, ds, s, i, x, keys, idw, c, dq, smallest=few)
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
    b, e, own = torch.empty_like(P), torch.empty_like(P), split_range(_num_tokens(P), smallest=_few(each))
    across = (keys * E).sum(-1)
    dp = x.new_zeros(len(own), keys.shape[0], 2, keys.shape[-2])
    run_spans(loops.towards, own, own_s, own_i, x, E, across, P, z, idw, b, dp)
    dp = dp.sum(0) * slope
    stepped = (own_s, own_i, x, keys, E, P, z, b, dp, idw, ds, c, e, dq)
    run_range(loops.step_gradients, _num_tokens(P), *stepped, smallest=_few(4 * each))
    only_read = (step_tokens, ds, s, i, x, keys, idw, c, dq)
    run_range(loops.read_gradients, _num_tokens(s), *only_read, smallest=_few(each))
    total, c_sum = _spread(c, i, x, keys)
    if idw:
        total.addcmul_(keys, c_sum[..., None], value=-1)
        total.addcmul_(E, _sums(e, own_i, keys)[..., None], value=-1)
    return dq, total


def _num_tokens(s: Tensor) -> int:
    """Count the tokens of scores [S, 2, H, M, k]."""
    return s[:, 0, ..., 0].numel()


def _few(numbers: int) -> int:
    """Return how many tokens that each add up so many numbers are worth a thread."""
    return max(1, _FEWEST_NUMBERS // numbers)


def _row_numbers(s: Tensor, x: Tensor) -> int:
    return s.shape[-1] * x.shape[-1]


def _like_queries(x: Tensor) -> Tensor:
    S, _, H, M, d = x.shape
    return x.new_empty(S, M, H, 2 * d)


def _scattered(d_best: Tensor | None, place: Tensor, s: Tensor) -> Tensor:
    ds = torch.zeros_like(s)
    if d_best is not None:
        run_range(loops.scatter, _num_tokens(s), d_best, place, ds, smallest=_few(s.shape[-1]))
    return ds


def _entropy(s: Tensor, i: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows' softmax P, and  phi(p)  and  phi'(p)  of every sub-key, [S, 2, n]."""
    S, _, H, M, _ = s.shape
    spans, P = split_range(_num_tokens(s), smallest=_few(s.shape[-1])), torch.empty_like(s)
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
    few = max(1, _FEWEST_NUMBERS * items // (2 * c.numel() * d + 1))
    run_range(loops.spread, items, c, i, x, total, smallest=few)
    return total, c_sum


def _sums(c: Tensor, i: Tensor, keys: Tensor) -> Tensor:
    total = c.new_zeros(keys.shape[:-1])
    items = total[..., 0].numel()
    run_range(loops.per_key_sum, items, c, i, total, smallest=items)
    return total
