"""Addressing for all windows of a call at once, in compiled loops: one operation, and no version of the keys kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.addressing.constants import ScoreKind
from fwpkm.ops.addressing.operation import check_address, key_squares
from fwpkm.ops.backend import runs_compiled

_FEWEST_NUMBERS = 1 << 20
"""Numbers to add up that are worth a thread."""
_SIFTING = 8
"""Numbers that could be added up while one score is sifted."""
_STEPPING = 4
"""Numbers that could be added up while one of a sub-key's is moved and noted."""
_FIRST, _TOKENS, _WRITTEN, _STEPS, _ROW, _PAIR = range(6)
"""Columns of a plan."""


def can_scan(q: Float[Tensor, "B T H Dk"], keys: Float[Tensor, "S 2 H n half"]) -> bool:
    """Return whether `address_windows` is there for these queries and sub-keys, and the fastest way."""
    if (
        torch.compiler.is_compiling()
        or q.shape[0] != keys.shape[0]
        or not q.numel()
        or not runs_compiled(keys)
    ):
        return False
    return torch.get_num_threads() <= 2 * q.shape[0]  # the gradients are shared out by streams and halves


def address_windows(
    q: Float[Tensor, "S T H Dk"],
    keys: Float[Tensor, "S 2 H n half"],
    windows: Sequence[tuple[int, int, int, int]],
    *,
    topk: int,
    score: ScoreKind = "idw",
    step_size: float = 1.0,
    squares: Float[Tensor, "S 2 H n"] | None = None,
) -> tuple[Float[Tensor, "R J"], Int[Tensor, "R J"], Float[Tensor, "S 2 H n half"], Float[Tensor, "S 2 H n"]]:
    """Do for every window what `address` does, each with the sub-keys that the one before has moved.

    Args:
        q: Queries of all tokens.
        keys: The streams' sub-keys before the first window.
        windows: Of each its first token, the one behind its last, and how many of its leading tokens are written, and
            step the keys.
        topk: Slots per head.
        score: How a query half is compared with a sub-key.
        step_size: Step size of the keys.
        squares: `key_squares` of the keys, where they are known already.

    Returns:
        Scores and slots, these numbered through all streams (stream * n * n + slot), window after window, in each the
        written tokens of all streams first; the keys after the last step, and their squares.

    Raises:
        ValueError: If widths, heads, topk or windows do not fit.
    """
    check_address("address_windows", q, keys, topk)
    q = q.to(keys.dtype)
    plan = _plan(windows, q, topk)
    if squares is None:
        squares = key_squares(keys.detach(), score)
    flat = [int(x) for x in plan.flatten()]
    learns = torch.is_grad_enabled() and (q.requires_grad or keys.requires_grad)
    given = (q, keys, squares, flat, topk, score, float(step_size), learns)
    scores, cells, moved, moved_squares, *_ = _address_windows(*given)
    if not plan[:, _STEPS].any():
        return scores, cells, keys, squares
    return scores, cells, moved, moved_squares


def _plan(windows: Sequence[tuple[int, int, int, int]], q: Tensor, topk: int) -> np.ndarray:
    S, T, H, _ = q.shape
    given = np.array(windows, dtype=np.int64).reshape(-1, 4)
    first, last, written, steps = given.T
    tokens = last - first
    if ((first < 0) | (last > T) | (tokens < 0)).any() or (np.stack((written, steps)) > tokens).any():
        raise ValueError(
            "address_windows: windows must lie in [0, T) and write and step for some of their tokens, got "
            f"windows={list(windows)} with T={T}"
        )
    rows = S * (np.cumsum(tokens) - tokens)
    return np.stack((first, tokens, written, steps, rows, 2 * H * topk * rows), axis=1)


def _most_steps(plan: np.ndarray, H: int, n: int, k: int) -> int:
    """Return how many sub-keys an item's steps move at most."""
    return int(np.minimum(H * n, H * k * plan[:, _STEPS]).sum())


@torch.library.custom_op("fwpkm::address_windows", mutates_args=())
def _address_windows(
    q: Tensor,
    keys: Tensor,
    squares: Tensor,
    plan: list[int],
    topk: int,
    score: str,
    step_size: float,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return scores, cells, moved keys and their squares; then what the backward needs, all flat: the slots' places
    among the halves' best, strengths and ids of sub-keys, and, if it `learns`, a log of the steps: cells, their old
    contents, and where each window's end."""
    from fwpkm.ops.addressing.scan_windows import address_in_turn, address_streams
    from fwpkm.ops.threads import array_of, drive, run_spans, split_range

    windows = np.array(plan, dtype=np.int64).reshape(-1, 6)
    (S, T, H, Dk), n = q.shape, keys.shape[-2]
    best, cell, moved, squares_moved, place, g, i, *log = _room(q, keys, windows, topk, learns)
    moved.copy_(keys)
    squares_moved.copy_(squares)
    log[-1].zero_()
    own = (moved.view(S * 2, H * n, -1), squares_moved.view(S * 2, H * n))
    out = (tuple(array_of(t) for t in group) for group in ((g, i, place), (best, cell), log))
    given = (windows, q, *own, n * n, step_size, score == "idw", *out)
    few_tokens = max(1, _FEWEST_NUMBERS // (2 * H * n * (Dk // 2 + _SIFTING)))
    threads = torch.get_num_threads()
    if S % threads == 0 or 4 * threads <= S:  # no thread waits for another
        run_spans(address_streams, split_range(S, smallest=-(-few_tokens // T)), *given)
    else:
        drive(address_in_turn, *given, threads, few_tokens, _FEWEST_NUMBERS // _STEPPING)
    log_cell, log_row, log_end = log
    return best.flatten(1), cell.flatten(1), moved, squares_moved, place, g, i, log_cell, log_row, log_end


def _room(q: Tensor, keys: Tensor, plan: np.ndarray, topk: int, learns: bool) -> tuple[Tensor, ...]:
    """Return room for what the operation returns."""
    (S, _, H, Dk), n = q.shape, keys.shape[-2]
    rows = S * int(plan[:, _TOKENS].sum())
    logged = _most_steps(plan, H, n, topk) if learns else 0
    g = q.new_empty(2 * rows * H * topk)
    best = q.new_empty(rows, H, topk)
    return (
        best,
        best.new_empty(best.shape, dtype=torch.int64),
        keys.new_empty(keys.shape),
        keys.new_empty(keys.shape[:-1]),
        g.new_empty(g.shape, dtype=torch.int32),
        g,
        g.new_empty(g.shape, dtype=torch.int32),
        g.new_empty(2 * S, logged, dtype=torch.int32),
        g.new_empty(2 * S, logged, Dk // 2),
        g.new_empty(2 * S, len(plan) + 1, dtype=torch.int64),
    )


@_address_windows.register_fake
def _(
    q: Tensor,
    keys: Tensor,
    squares: Tensor,
    plan: list[int],
    topk: int,
    score: str,
    step_size: float,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    windows = np.array(plan, dtype=np.int64).reshape(-1, 6)
    best, cell, moved, moved_squares, *kept = _room(q, keys, windows, topk, learns)
    place, g, i, log_cell, log_row, log_end = kept
    return best.flatten(1), cell.flatten(1), moved, moved_squares, place, g, i, log_cell, log_row, log_end


@torch.library.custom_op("fwpkm::address_windows_backward", mutates_args=())
def _backward_of_windows(
    q: Tensor,
    moved: Tensor,
    place: Tensor,
    g: Tensor,
    i: Tensor,
    log_cell: Tensor,
    log_row: Tensor,
    log_end: Tensor,
    d_best: Tensor,
    d_moved: Tensor | None,
    plan: list[int],
    topk: int,
    score: str,
    step_size: float,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of queries and of the first sub-keys."""
    from fwpkm.ops.addressing.scan_back import walk_back
    from fwpkm.ops.threads import run_spans, split_range

    windows = np.array(plan, dtype=np.int64).reshape(-1, 6)
    (S, _, H, Dk), n = q.shape, moved.shape[-2]
    keys = moved.clone(memory_format=torch.contiguous_format)
    D = (
        keys.new_zeros(keys.shape)
        if d_moved is None
        else d_moved.clone(memory_format=torch.contiguous_format)
    )
    dq = q.new_zeros(q.shape)
    spans = split_range(2 * S, smallest=max(1, _FEWEST_NUMBERS * 2 * S // (4 * d_best.numel() * Dk + 1)))
    own_keys, own_D = (t.view(2 * S, H * n, Dk // 2) for t in (keys, D))
    kept = (windows, g, i, place, q, d_best.view(-1, H, topk))
    run_spans(
        walk_back,
        spans,
        *kept,
        step_size,
        score == "idw",
        own_keys,
        own_D,
        log_cell,
        log_row,
        log_end,
        dq,
    )
    return dq, D


@_backward_of_windows.register_fake
def _(
    q: Tensor,
    moved: Tensor,
    place: Tensor,
    g: Tensor,
    i: Tensor,
    log_cell: Tensor,
    log_row: Tensor,
    log_end: Tensor,
    d_best: Tensor,
    d_moved: Tensor | None,
    plan: list[int],
    topk: int,
    score: str,
    step_size: float,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), moved.new_empty(moved.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, _, _, ctx.plan, ctx.topk, ctx.score, ctx.step_size, _ = inputs
    best, cell, moved, squares, *kept = output
    ctx.rows = best.shape
    ctx.mark_non_differentiable(cell, squares, *kept)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, moved, *kept)


def _backward(ctx: Any, d_best: Tensor | None, _: Any, d_moved: Tensor | None, *__: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once: under activation checkpointing they are gone afterwards
    if d_best is None:
        d_best = saved[0].new_zeros(ctx.rows)
    dq, dkeys = _backward_of_windows(
        *saved, d_best.contiguous(), d_moved, ctx.plan, ctx.topk, ctx.score, ctx.step_size
    )
    return dq, dkeys, None, None, None, None, None, None


_address_windows.register_autograd(_backward, setup_context=_setup_context)
