"""Product-key addressing in plain PyTorch: one matrix product, two small top-k, gradients in closed form."""

from functools import lru_cache

import torch
from torch import Tensor

from fwpkm.ops.addressing.constants import ENTROPY_EPS, IDW_EPS
from fwpkm.ops.sparse import Runs, gathered_inner, gathered_sum


def address_torch(
    q: Tensor, keys: Tensor, squares: Tensor, step_size: Tensor, topk: int, score: str, step_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do what the operation `fwpkm::address` does."""
    S, M, H, _ = q.shape
    n = keys.shape[-2]
    x = grouped(q)
    s, i = best_sub_keys(x, keys.flatten(0, 2), squares.flatten(0, 2), topk, score)
    s, i = s.view(S, 2, H, M, topk), i.view(S, 2, H, M, topk)
    best, slot, row, col = combine_halves(s, i, n, topk)
    moved = keys.new_empty(0)
    if step_tokens:
        moved = step_keys(s, i, x.view(S, 2, H, M, -1), keys, step_size, score, step_tokens)
    return (
        best.transpose(1, 2).contiguous(),
        slot.transpose(1, 2).contiguous(),
        torch.stack((row, col), dim=1),
        s,
        i,
        moved,
    )


def grouped(q: Tensor) -> Tensor:
    """Bring queries [S, M, H, Dk] into the order of the keys, [S*2*H, M, Dk/2]."""
    S, M, H, Dk = q.shape
    return q.view(S, M, H, 2, Dk // 2).permute(0, 3, 2, 1, 4).reshape(S * 2 * H, M, Dk // 2)


def best_sub_keys(x: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str) -> tuple[Tensor, Tensor]:
    """Score queries [G, M, d] against sub-keys [G, n, d], |K|^2 [G, n]; return the best scores and ids [G, M, k]."""
    best = nearness(x, keys, squares, score).topk(topk, dim=-1)
    if score == "dot":
        return best.values, best.indices
    distance = (x.square().sum(-1, keepdim=True) - best.values).clamp_min_(0)
    return -torch.log(distance + IDW_EPS), best.indices


def nearness(x: Tensor, keys: Tensor, squares: Tensor, score: str) -> Tensor:
    """Return what ranks sub-keys as the score does, so that the logarithm is taken of the winners only.

    That is q . K, or  -|q - K|^2 + |q|^2  for "idw".
    """
    if score == "dot":
        return torch.bmm(x, keys.transpose(1, 2))
    return torch.baddbmm(squares[:, None, :], x, keys.transpose(1, 2), beta=-1, alpha=2)


def combine_halves(s: Tensor, i: Tensor, n: int, topk: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Join the halves' best [S, 2, H, M, k], best first: scores and ids of the best slots, and their halves' places.

    The pair of the a-th best row and the b-th best column is beaten by all (a+1)(b+1) - 1 pairs of better
    ones, so only the pairs with (a+1)(b+1) <= k are looked at: 20 of 64 for k = 8.
    """
    rows, cols = _candidates(topk, s.device)
    pairs = s[:, 0].index_select(-1, rows) + s[:, 1].index_select(-1, cols)  # [S, H, M, candidates]
    best = pairs.topk(topk, dim=-1)
    row, col = rows[best.indices], cols[best.indices]
    slot = i[:, 0].gather(-1, row) * n + i[:, 1].gather(-1, col)
    return best.values, slot, row, col


@lru_cache(maxsize=64)
def _candidates(topk: int, device: torch.device) -> tuple[Tensor, Tensor]:
    pairs = [(a, b) for a in range(topk) for b in range(topk) if (a + 1) * (b + 1) <= topk]
    rows, cols = torch.tensor(pairs, device=device).unbind(1)
    return rows.contiguous(), cols.contiguous()


def step_keys(
    s: Tensor, i: Tensor, x: Tensor, keys: Tensor, step_size: Tensor, score: str, step_tokens: int
) -> Tensor:
    """Return the keys after their step on the first tokens' kept scores and ids [S, 2, H, M, k]."""
    x, s, i = (t[..., :step_tokens, :] for t in (x, s, i))
    pull, _, _ = _entropy_pull(s, i, keys.shape[-2])
    return keys - _spread(_slope(pull, s, score), i, x, keys, score) * per_stream(step_size)


def per_stream(step_size: Tensor) -> Tensor:
    """Bring the streams' step sizes [S] before keys [S, 2, H, n, d]."""
    return step_size.view(-1, 1, 1, 1, 1)


def _entropy_pull(s: Tensor, i: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Differentiate the addressing loss by the kept sub-key scores [S, 2, H, M, k].

    With P the rows' softmax and p their mean:  dL/ds = P (z - sum P z) / (M H),  z = phi(p) of the
    sub-key, phi(p) = log(p + eps) + p / (p + eps).

    Returns:
        dL/ds, then P and p [S, 2, n], which the second derivative needs again.
    """
    H, M = s.shape[2:4]
    P = s.softmax(dim=-1)
    p = _pooled_sum(P, i, n) / (H * M)
    z = _at(torch.log(p + ENTROPY_EPS) + p / (p + ENTROPY_EPS), i)
    pull = P * (z - (P * z).sum(-1, keepdim=True)) / (H * M)
    return pull, P, p


def _at(per_key: Tensor, i: Tensor) -> Tensor:
    """Look up per-sub-key numbers [S, 2, n] at ids [S, 2, H, M, k]."""
    return per_key.gather(-1, i.flatten(2)).view(i.shape)


def _slope(ds: Tensor, s: Tensor, score: str) -> Tensor:
    """Turn dL/ds into the factor of (q - K), for "idw", or of q, for "dot", in dL/dK."""
    return ds if score == "dot" else 2 * ds * torch.exp(s)  # exp(s) = 1 / (eps + |q - K|^2)


def _spread(c: Tensor, i: Tensor, x: Tensor, keys: Tensor, score: str) -> Tensor:
    """Add up, per sub-key,  sum_t c_t q_t  (and  - K sum_t c_t  for "idw"): a gradient of the keys."""
    k, total = i.shape[-1], torch.zeros_like(keys, memory_format=torch.contiguous_format)
    runs = Runs.of(_flat_ids(i, keys).view(-1, k))
    runs.add_(total.flatten(0, 3), c.reshape(-1, k), x.reshape(-1, x.shape[-1]))
    return total if score == "dot" else total.sub_(keys * _per_key_sum(c, i, keys))


def _per_key_sum(c: Tensor, i: Tensor, keys: Tensor) -> Tensor:
    """Add up coefficients [S, 2, H, M, k] by sub-key: [S, 2, H, n, 1]."""
    total = c.new_zeros(keys.shape[:4]).flatten().index_add_(0, _flat_ids(i, keys).flatten(), c.flatten())
    return total.view(*keys.shape[:4], 1)


def _pooled_sum(per_pair: Tensor, i: Tensor, n: int) -> Tensor:
    """Add up numbers [S, 2, H, M, k] by sub-key, the heads together: [S, 2, n]."""
    S = i.shape[0]
    first = torch.arange(0, 2 * S * n, n, device=i.device).view(S, 2, 1, 1, 1)
    return (
        per_pair.new_zeros(2 * S * n).index_add_(0, (i + first).flatten(), per_pair.flatten()).view(S, 2, n)
    )


def _gather_sum(c: Tensor, i: Tensor, rows: Tensor) -> Tensor:
    """Add up, per token,  sum_j c_j rows[i_j]  with rows [S, 2, H, n, d]: [S, 2, H, M, d]."""
    *lead, k = i.shape
    total = gathered_sum(c.reshape(-1, k), _flat_ids(i, rows).view(-1, k), rows.flatten(0, 3))
    return total.view(*lead, rows.shape[-1])


def _inner(x: Tensor, i: Tensor, rows: Tensor) -> Tensor:
    """Take the inner products  x . rows[i_j]  of tokens [S, 2, H, M, d] with their sub-keys' rows."""
    return gathered_inner(
        x.reshape(-1, x.shape[-1]), rows.flatten(0, 3), _flat_ids(i, rows).flatten(0, 3)
    ).view(i.shape)


def _flat_ids(i: Tensor, rows: Tensor) -> Tensor:
    """Number the sub-keys [S, 2, H, M, k] through all streams, halves and heads."""
    groups = i.shape[0] * i.shape[1] * i.shape[2]
    first = torch.arange(0, groups * rows.shape[3], rows.shape[3], device=i.device)
    return i + first.view(*i.shape[:3], 1, 1)


def address_backward_torch(
    q: Tensor,
    keys: Tensor,
    step_size: Tensor,
    place: Tensor,
    s: Tensor,
    i: Tensor,
    d_best: Tensor | None,
    d_moved: Tensor | None,
    score: str,
    step_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of queries and keys. See README.md for the derivation."""
    x = grouped(q).view(*s.shape[:-1], q.shape[-1] // 2)
    ds = torch.zeros_like(s)
    if d_best is not None:
        ds.scatter_add_(-1, place, d_best.transpose(1, 2)[:, None].expand_as(place))
    c, further, dkeys = _slope(ds, s, score), None, torch.zeros_like(keys)
    if step_tokens and d_moved is not None:
        first = (..., slice(0, step_tokens), slice(None))
        c[first], further, dkeys = _key_step_backward(
            x[first], keys, s[first], i[first], ds[first], -d_moved * per_stream(step_size), score
        )
        dkeys += d_moved
    dq = _gather_sum(c, i, keys)
    if score == "idw":
        dq.addcmul_(x, c.sum(-1, keepdim=True), value=-1)
    if further is not None:
        dq[..., :step_tokens, :] += further
    dkeys += _spread(c, i, x, keys, score)
    return dq.permute(0, 3, 2, 1, 4).reshape(q.shape), dkeys


def _key_step_backward(
    x: Tensor, keys: Tensor, s: Tensor, i: Tensor, ds: Tensor, E: Tensor, score: str
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Differentiate  <E, dL_addr/dK>  by scores, queries and keys: the second order of the key step.

    With a = dL/ds and b = E . ds/dK the scalar is  sum a b ; `ds` is what the reads already want.

    Returns:
        Coefficients c of  (q - K)  (or of q, for "dot") with all that acts through the scores folded in,
        and the further gradients of queries and keys.
    """
    pull, P, p = _entropy_pull(s, i, keys.shape[-2])
    towards = _inner(x, i, E)
    if score == "idw":
        inverse = torch.exp(s)
        towards -= (keys * E).sum(-1).gather(-1, i.flatten(3)).view(i.shape)  # (q - K) . E
        b = 2 * towards * inverse
    else:
        b = towards
    ds = ds + _entropy_pull_backward(b, P, p, i)
    if score == "dot":
        return ds, _gather_sum(pull, i, E), torch.zeros_like(keys)
    e = 2 * pull * inverse
    c = 2 * (ds + b * pull) * inverse
    return c, _gather_sum(e, i, E), -E * _per_key_sum(e, i, keys)


def _entropy_pull_backward(b: Tensor, P: Tensor, p: Tensor, i: Tensor) -> Tensor:
    """Differentiate  sum b dL/ds  by the sub-key scores, dL/ds as in `_entropy_pull`."""
    H, M = P.shape[2:4]
    z = _at(torch.log(p + ENTROPY_EPS) + p / (p + ENTROPY_EPS), i)
    b_mean, z_mean = ((P * t).sum(-1, keepdim=True) for t in (b, z))
    dz = P * (b - b_mean) / (M * H)
    dp = _pooled_sum(dz, i, p.shape[-1])
    dp *= 1 / (p + ENTROPY_EPS) + ENTROPY_EPS / (p + ENTROPY_EPS).square()
    dP = (b * (z - z_mean) - z * b_mean + _at(dp, i)) / (M * H)
    return P * (dP - (P * dP).sum(-1, keepdim=True))
