"""Product-key addressing as an operation of PyTorch: carried out by whatever backend runs, differentiable once."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.addressing.constants import ScoreKind
from fwpkm.ops.addressing.torch import (
    address_backward_torch,
    address_torch,
    best_sub_keys,
    combine_halves,
    grouped,
    per_stream,
    step_keys,
)
from fwpkm.ops.backend import compose, runs_compiled, runs_triton, say_composed


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
        q: Queries of one chunk; they may be narrower than the keys, in whose precision all is computed.
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
        step_size = keys.new_ones(q.shape[0])
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
    if torch.promote_types(q.dtype, keys.dtype) != keys.dtype:
        raise ValueError(
            f"{where}: queries must not be wider than the keys, got q of {q.dtype} and keys of {keys.dtype}"
        )
    if not 1 <= topk <= keys.shape[-2]:
        raise ValueError(f"{where}: topk must be in [1, n], got topk={topk} with n={keys.shape[-2]}")


def _find_slots(q: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str) -> tuple[Tensor, Tensor]:
    """Return scores and slots [S, M, H, k] and nothing else: all that decoding needs."""
    S, M, H, _ = q.shape
    if runs_triton(q):
        best, slot, *_ = _triton_slots(q, keys, squares, topk, score)
        return best, slot
    x = grouped(q.to(keys.dtype))
    if runs_compiled(keys):
        best, slot, *_ = _compiled_slots(x, keys, squares, topk, score)
        return best, slot
    s, i = best_sub_keys(x, keys.flatten(0, 2), squares.flatten(0, 2), topk, score)
    best, slot, _, _ = combine_halves(
        s.view(S, 2, H, M, topk), i.view(S, 2, H, M, topk), keys.shape[-2], topk
    )
    return best.transpose(1, 2), slot.transpose(1, 2)


def _compiled_slots(x: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str) -> tuple[Tensor, ...]:
    from fwpkm.ops.addressing.numba import find_slots

    S, _, H, _, d = keys.shape
    return find_slots(x.view(S, 2, H, -1, d), keys, squares, topk, score)


def _triton_slots(q: Tensor, keys: Tensor, squares: Tensor, topk: int, score: str) -> tuple[Tensor, ...]:
    from fwpkm.ops.addressing.triton import MOST_SLOTS, find_slots

    if topk > MOST_SLOTS:
        compose("finding slots", f"kernels find at most {MOST_SLOTS} slots a head, got topk={topk}")
        no_step = keys.new_zeros(q.shape[0])
        return address_torch(q.to(keys.dtype), keys, squares, no_step, topk, score, 0)[:-1]
    return find_slots(q, keys, squares, topk, score)


@torch.library.custom_op("fwpkm::address", mutates_args=())
def _address(
    q: Tensor, keys: Tensor, squares: Tensor, step_size: Tensor, topk: int, score: str, step_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return scores, slots [S, M, H, k]; then what the backward needs: the slots' places among the halves' best,
    sub-key scores and ids, all [S, 2, H, M, k]; last the moved keys (or an empty tensor)."""
    if runs_triton(q):
        return _address_triton(q, keys, squares, step_size, topk, score, step_tokens)
    if runs_compiled(keys):
        return _address_compiled(
            grouped(q.to(keys.dtype)), keys, squares, step_size, topk, score, step_tokens
        )
    return address_torch(q.to(keys.dtype), keys, squares, step_size, topk, score, step_tokens)


def _address_triton(
    q: Tensor, keys: Tensor, squares: Tensor, step_size: Tensor, topk: int, score: str, step_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from fwpkm.ops.addressing.triton import step_keys as step_keys_triton

    best, slot, place, s, i = _triton_slots(q, keys, squares, topk, score)
    if not step_tokens:
        return best, slot, place, s, i, keys.new_empty(0)
    if _adds_in_order():
        x = grouped(q.to(keys.dtype)).view(*s.shape[:-1], q.shape[-1] // 2)
        return best, slot, place, s, i, step_keys(s, i, x, keys, step_size, score, step_tokens)
    own_s, own_i = (t[..., :step_tokens, :] for t in (s, i))
    return best, slot, place, s, i, step_keys_triton(own_s, own_i, q, keys, step_size, score)


def _address_compiled(
    x: Tensor, keys: Tensor, squares: Tensor, step_size: Tensor, topk: int, score: str, step_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from fwpkm.ops.addressing.numba import step_keys as step_keys_compiled

    best, slot, place, s, i = _compiled_slots(x, keys, squares, topk, score)
    moved = keys.new_empty(0)
    if step_tokens:
        own_s, own_i = (t[..., :step_tokens, :] for t in (s, i))
        moved = step_keys_compiled(own_s, own_i, x.view(*s.shape[:-1], -1), keys, step_size, score)
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
    if runs_triton(q) and not _adds_in_order():
        return _backward_triton(q, keys, step_size, place, s, i, d_best, d_moved, score, step_tokens)
    wide, given = q.to(keys.dtype), (step_size, place, s, i, d_best, d_moved, score, step_tokens)
    if runs_compiled(keys):
        dq, dkeys = _backward_compiled(grouped(wide).view(*s.shape[:-1], q.shape[-1] // 2), keys, *given)
    else:
        dq, dkeys = address_backward_torch(wide, keys, *given)
    return dq.to(q.dtype), dkeys


def _adds_in_order() -> bool:
    """Return whether kernels leave addressing's sums to plain PyTorch, which adds up in the order of the tokens."""
    wanted = torch.are_deterministic_algorithms_enabled()
    if wanted:
        say_composed("addressing's sums", "use_deterministic_algorithms asks for a fixed order")
    return wanted


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
    E = -d_moved * per_stream(step_size)
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
    E = -d_moved * per_stream(step_size) if stepped and d_moved is not None else None
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
