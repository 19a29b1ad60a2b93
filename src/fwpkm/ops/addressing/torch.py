"""Product-key addressing in plain PyTorch: one matrix product, two small top-k, gradients in closed form."""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.addressing.constants import ENTROPY_EPS, IDW_EPS, ScoreKind
from fwpkm.ops.backend import runs_compiled, runs_triton
from fwpkm.ops.sparse import Runs, gathered_inner, gathered_sum


def product_key_topk(
    q: Float[Tensor, "*S M H Dk"], keys: Float[Tensor, "*S 2 H n half"], topk: int, score: ScoreKind = "idw"
) -> tuple[Float[Tensor, "*S M H {topk}"], Int[Tensor, "*S M H {topk}"]]:
    r"""Find the `topk` best-scoring slots of an n x n grid without scoring all N = n*n of them.

    Slot i*n + j scores s1_i + s2_j, so the best slots lie in the product of the best `topk` rows and the
    best `topk` columns (Lample et al. 2019, arXiv:1907.05242, Sec. 3.1). Differentiable in `q` and `keys`.

    Args:
        q: Queries; the first half of Dk meets keys[0], the second keys[1].
        keys: Sub-keys, one set per stream where `q` has a stream dimension.
        topk: Slots per head, 1 <= topk <= n.
        score: "idw" is -log(1e-3 + |q - K|^2), "dot" is q . K.

    Returns:
        Scores and slot ids, best first.

    Raises:
        ValueError: If widths, heads or topk do not fit each other.
    """
    batched = q.dim() == 4
    score_out, slot, _ = address(
        q if batched else q[None], keys if batched else keys[None], topk=topk, score=score
    )
    return (score_out, slot) if batched else (score_out[0], slot[0])


def address(
    q: Float[Tensor, "S M H Dk"],
    keys: Float[Tensor, "S 2 H n half"],
    *,
    topk: int,
    score: ScoreKind = "idw",
    step_tokens: int = 0,
    step_size: Float[Tensor, " S"] | None = None,
    squares: Float[Tensor, "S 2 H n"] | None = None,
) -> tuple[Float[Tensor, "S M H {topk}"], Int[Tensor, "S M H {topk}"], Float[Tensor, "S 2 H n half"]]:
    r"""Address `M` tokens of `S` streams, then move the sub-keys one step so that they are used more evenly.

    The key step is  K' = K - step_size dL_addr/dK  with  L_addr = -H(p1) - H(p2)  over the first
    `step_tokens` tokens  (FwPKM, arXiv:2601.00671v2, marginal entropy; heads pooled, D6). All of it,
    the step included, is differentiable once in `q` and `keys`.

    Args:
        q: Queries of one chunk.
        keys: The streams' sub-keys while that chunk is read.
        topk: Slots per head, 1 <= topk <= n.
        score: How a query half is compared with a sub-key.
        step_tokens: Leading tokens whose use of the sub-keys counts; 0 leaves the keys alone.
        step_size: Step size of each stream's keys (0 for a stream that does not step now); default 1.
        squares: `key_squares` of the keys, where they are known already.

    Returns:
        Scores and slot ids, best first, and the keys after the step (`keys` itself when there is none).

    Raises:
        ValueError: If widths, heads, topk or step_tokens do not fit each other.
    """
    check_address("address", q, keys, topk)
    if not 0 <= step_tokens <= q.shape[1]:
        raise ValueError(
            f"address: step_tokens must be in [0, M], got step_tokens={step_tokens} with M={q.shape[1]}"
        )
    squares = key_squares(keys, score).detach() if squares is None else squares
    differentiable = torch.is_grad_enabled() and (q.requires_grad or keys.requires_grad)
    if not (step_tokens or differentiable or torch.compiler.is_compiling()):
        return *_find_slots(q, keys, squares, topk, score), keys
    if step_size is None:
        step_size = q.new_ones(q.shape[0])
    scores, slot, _, _, _, moved = _address(q, keys, squares, step_size, topk, score, step_tokens)
    return scores, slot, moved if step_tokens else keys


def key_squares(keys: Float[Tensor, "*S half"], score: ScoreKind) -> Float[Tensor, " *S"]:
    """Return |K|^2 of every sub-key, which "idw" needs for each token; zeros for "dot", which does not."""
    return keys.square().sum(-1) if score == "idw" else keys.new_zeros(()).expand(keys.shape[:-1])


def check_address(where: str, q: Tensor, keys: Tensor, topk: int) -> None:
    """Refuse shapes that do not fit each other; `q` and `keys` end in [H, Dk] and [2, H, n, Dk/2]."""
    heads, width = q.shape[-2:]
    if keys.shape[-4] != 2 or keys.shape[-3] != heads or 2 * keys.shape[-1] != width:
        raise ValueError(
            f"{where}: keys must be [..., 2, H, n, Dk/2] for queries [..., H, Dk], got keys "
            f"{tuple(keys.shape)} with queries {tuple(q.shape)}"
        )
    if not 1 <= topk <= keys.shape[-2]:
        raise ValueError(f"{where}: topk must be in [1, n], got topk={topk} with n={keys.shape[-2]}")


def _grouped(q: Tensor) -> Tensor:
    """Bring queries [S, M, H, Dk] into the order of the keys, [S*2*H, M, Dk/2]."""
    S, M, H, Dk = q.shape
    return q.view(S, M, H, 2, Dk // 2).permute(0, 3, 2, 1, 4).reshape(S * 2 * H, M, Dk // 2)


def best_sub_keys(x: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str) -> tuple[Tensor, Tensor]:
    """Score queries [G, M, d] against sub-keys [G, n, d], |K|^2 [G, n]; return the best scores and ids [G, M, k]."""
    best = _nearness(x, keys, squares, score).topk(topk, dim=-1)
    if score == "dot":
        return best.values, best.indices
    distance = (x.square().sum(-1, keepdim=True) - best.values).clamp_min_(0)
    return -torch.log(distance + IDW_EPS), best.indices


def _nearness(x: Tensor, keys: Tensor, squares: Tensor, score: str) -> Tensor:
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


def _find_slots(q: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str) -> tuple[Tensor, Tensor]:
    """Return scores and slots [S, M, H, k] and nothing else: all that decoding needs."""
    S, M, H, _ = q.shape
    if runs_triton(q):
        best, slot, *_ = _triton_slots(q, keys, squares, topk, score)
        return best, slot
    x = _grouped(q)
    if runs_compiled(q):
        best, slot, *_ = _compiled_slots(x, keys, squares, topk, score)
        return best, slot
    s, i = best_sub_keys(x, keys.flatten(0, 2), squares.flatten(0, 2), topk, score)
    best, slot, _, _ = combine_halves(
        s.view(S, 2, H, M, topk), i.view(S, 2, H, M, topk), keys.shape[-2], topk
    )
    return best.transpose(1, 2), slot.transpose(1, 2)


def _compiled_slots(x: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str) -> tuple[Tensor, ...]:
    from fwpkm.ops.addressing.numba import find_slots

    S, _, H, n, _ = keys.shape
    near = _nearness(x, keys.flatten(0, 2), squares.flatten(0, 2), score).view(S, 2, H, -1, n)
    return find_slots(near, x.view(*near.shape[:-1], x.shape[-1]), topk, score)


def _triton_slots(q: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str) -> tuple[Tensor, ...]:
    from fwpkm.ops.addressing.triton import find_slots

    return find_slots(q, keys, squares, topk, score)


@torch.library.custom_op("fwpkm::address", mutates_args=())
def _address(
    q: Tensor, keys: Tensor, squares: Tensor, step_size: Tensor, topk: int, score: str, step_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return scores, slots [S, M, H, k]; then what the backward needs: the slots' places among the halves' best,
    sub-key scores and ids, all [S, 2, H, M, k]; last the moved keys (or an empty tensor)."""
    S, M, H, _ = q.shape
    n = keys.shape[-2]
    if runs_triton(q):
        return _address_triton(q, keys, squares, step_size, topk, score, step_tokens)
    x, flat = _grouped(q), keys.flatten(0, 2)
    if runs_compiled(q):
        return _address_compiled(x, keys, squares, step_size, topk, score, step_tokens)
    s, i = best_sub_keys(x, flat, squares.flatten(0, 2), topk, score)
    s, i = s.view(S, 2, H, M, topk), i.view(S, 2, H, M, topk)
    best, slot, row, col = combine_halves(s, i, n, topk)
    moved = keys.new_empty(0)
    if step_tokens:
        moved = _step_keys(s, i, x.view(S, 2, H, M, -1), keys, step_size, score, step_tokens)
    return (
        best.transpose(1, 2).contiguous(),
        slot.transpose(1, 2).contiguous(),
        torch.stack((row, col), dim=1),
        s,
        i,
        moved,
    )


def _step_keys(
    s: Tensor, i: Tensor, x: Tensor, keys: Tensor, step_size: Tensor, score: str, step_tokens: int
) -> Tensor:
    x, s, i = (t[..., :step_tokens, :] for t in (x, s, i))
    pull, _, _ = _entropy_pull(s, i, keys.shape[-2])
    return keys - _spread(_slope(pull, s, score), i, x, keys, score) * _per_stream(step_size)


def _address_triton(
    q: Tensor, keys: Tensor, squares: Tensor, step_size: Tensor, topk: int, score: str, step_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from fwpkm.ops.addressing.triton import step_keys

    best, slot, place, s, i = _triton_slots(q, keys, squares, topk, score)
    if not step_tokens:
        return best, slot, place, s, i, keys.new_empty(0)
    if torch.are_deterministic_algorithms_enabled():  # plain PyTorch adds up in the order of the tokens
        x = _grouped(q).view(*s.shape[:-1], -1)
        return best, slot, place, s, i, _step_keys(s, i, x, keys, step_size, score, step_tokens)
    own_s, own_i = (t[..., :step_tokens, :] for t in (s, i))
    return best, slot, place, s, i, step_keys(own_s, own_i, q, keys, step_size, score)


def _address_compiled(
    x: Tensor, keys: Tensor, squares: Tensor, step_size: Tensor, topk: int, score: str, step_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from fwpkm.ops.addressing.numba import step_keys

    best, slot, place, s, i = _compiled_slots(x, keys, squares, topk, score)
    moved = keys.new_empty(0)
    if step_tokens:
        own_s, own_i = (t[..., :step_tokens, :] for t in (s, i))
        moved = step_keys(own_s, own_i, x.view(*s.shape[:-1], -1), keys, step_size, score)
    return best, slot, place, s, i, moved


@_address.register_fake
def _(
    q: Tensor, keys: Tensor, squares: Tensor, step_size: Tensor, topk: int, score: str, step_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    S, M, H, _ = q.shape
    best, sub = keys.new_empty(S, M, H, topk), keys.new_empty(S, 2, H, M, topk)
    slot = best.new_empty(best.shape, dtype=torch.int64)
    place, i = (sub.new_empty(sub.shape, dtype=torch.int64) for _ in range(2))
    return best, slot, place, sub, i, torch.empty_like(keys) if step_tokens else keys.new_empty(0)


def _per_stream(step_size: Tensor) -> Tensor:
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
    return gathered_sum(c.reshape(-1, k), _flat_ids(i, rows).view(-1, k), rows.flatten(0, 3)).view(*lead, -1)


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


@torch.library.custom_op("fwpkm::address_backward", mutates_args=())
def _address_backward(
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
    S, M, H, Dk = q.shape
    if runs_triton(q) and not torch.are_deterministic_algorithms_enabled():
        return _backward_triton(q, keys, step_size, place, s, i, d_best, d_moved, score, step_tokens)
    x = _grouped(q).view(S, 2, H, M, Dk // 2)
    if runs_compiled(q):
        return _backward_compiled(x, keys, step_size, place, s, i, d_best, d_moved, score, step_tokens)
    ds = torch.zeros_like(s)
    if d_best is not None:
        ds.scatter_add_(-1, place, d_best.transpose(1, 2)[:, None].expand_as(place))
    c, further, dkeys = _slope(ds, s, score), None, torch.zeros_like(keys)
    if step_tokens and d_moved is not None:
        first = (..., slice(0, step_tokens), slice(None))
        c[first], further, dkeys = _key_step_backward(
            x[first], keys, s[first], i[first], ds[first], -d_moved * _per_stream(step_size), score
        )
        dkeys += d_moved
    dq = _gather_sum(c, i, keys)
    if score == "idw":
        dq.addcmul_(x, c.sum(-1, keepdim=True), value=-1)
    if further is not None:
        dq[..., :step_tokens, :] += further
    dkeys += _spread(c, i, x, keys, score)
    return dq.permute(0, 3, 2, 1, 4).reshape(q.shape), dkeys


def _backward_compiled(
    x: Tensor,
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
    from fwpkm.ops.addressing.numba import read_backward, step_backward

    if not step_tokens or d_moved is None:
        return read_backward(x, keys, place, s, i, d_best, score)
    E = -d_moved * _per_stream(step_size)
    dq, dkeys = step_backward(x, keys, place, s, i, d_best, E, score, step_tokens)
    return dq, dkeys.add_(d_moved)


def _backward_triton(
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
    from fwpkm.ops.addressing.triton import backward

    stepped = bool(step_tokens) and d_moved is not None
    E = -d_moved * _per_stream(step_size) if stepped and d_moved is not None else None
    dq, dkeys = backward(q, keys, place, s, i, d_best, E, score, step_tokens if stepped else 0)
    return dq, dkeys if d_moved is None or not stepped else dkeys.add_(d_moved)


@_address_backward.register_fake
def _(
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
    return q.new_empty(q.shape), torch.empty_like(keys)


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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, keys, _, step_size, _, ctx.score, ctx.step_tokens = inputs
    _, slot, place, s, i, _ = output
    ctx.mark_non_differentiable(slot, place, s, i)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, keys, step_size, place, s, i)


def _backward(ctx: Any, d_best: Tensor | None, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    dq, dkeys = _address_backward(*ctx.saved_tensors, d_best, grads[-1], ctx.score, ctx.step_tokens)
    return dq, dkeys, None, None, None, None, None


_address.register_autograd(_backward, setup_context=_setup_context)
