"""Answer a few tokens in one compiled call, for decoding: address, weigh and read without a tensor in between.

The definition is `fwpkm.ops.addressing` and `fwpkm.ops.core.weights`, which any number of tokens may use.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.backend import runs_compiled, runs_triton
from fwpkm.ops.core.options import CoreOptions

TINY_VARIANCE = 1e-30
"""Below it a vector counts as constant; keeps the z-score's gradient finite there."""
_MOST_TOKENS = 8
"""Beyond it a matrix product finds the sub-keys faster."""
_MOST_TOKENS_TRITON = 64
"""The same where each token has a multiprocessor of its own."""
_FEWEST_READS = 32
"""Tokens whose reads are worth a thread."""


def can_answer(v: Float[Tensor, "B T Dv"]) -> bool:
    """Return whether `answer_tokens` is there for tokens like these, and the fastest way."""
    few = v.shape[0] * v.shape[1] <= (_MOST_TOKENS_TRITON if v.is_cuda else _MOST_TOKENS)
    return few and can_read(v)


def can_frame(x: Float[Tensor, "B T D"], dtype: torch.dtype) -> bool:
    """Return whether `fwpkm.ops.answer.frame` is there for hidden states like these and a memory of `dtype`."""
    if x.dtype != dtype or not can_answer(x):
        return False
    return runs_compiled(x) and not torch.is_autocast_enabled(x.device.type)


def can_read(w: Float[Tensor, "*M J"]) -> bool:
    """Return whether `read_cells` is there for weights like these."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return runs_compiled(w) or runs_triton(w)


def answer_tokens(
    q: Float[Tensor, "B T H Dk"],
    keys: Float[Tensor, "S 2 H n half"],
    squares: Float[Tensor, "S 2 H n"],
    base: Float[Tensor, "N Dv"] | None,
    index: Int[Tensor, "S N"],
    rows: Float[Tensor, "R Dv"],
    temperature: Float[Tensor, ""],
    options: CoreOptions,
) -> Float[Tensor, "B T Dv"]:
    """Return what tokens retrieve; nothing is written.

    Args:
        q: Queries of B streams, each with a table of its own, or (S = 1) all with one; they may be narrower than keys.
        keys: Sub-keys.
        squares: `key_squares` of the keys.
        base: Table under all streams' rows; None stands for zeros.
        index: Row of each slot, -1 where the base holds.
        rows: Written rows.
        temperature: Divides slot scores.
        options: The arithmetic.
    """
    out = keys.new_empty(*q.shape[:2], rows.shape[1])
    if keys.stride(0) == 0:
        keys, squares = keys[:1], squares[:1]  # fresh streams share theirs
    if runs_triton(q):
        from fwpkm.ops.answer import triton

        triton.answer(q, keys, squares, base, index, rows, temperature, options, out)
        return out
    from fwpkm.ops.answer.loops import WEIGHTS, answer
    from fwpkm.ops.threads import array_of

    arrays = [
        array_of(x)
        for x in (q.to(keys.dtype), keys, squares, rows[:0] if base is None else base, index, rows)
    ]
    answer(
        *arrays,
        float(temperature),
        options.topk,
        options.score == "idw",
        WEIGHTS[options.weights],
        array_of(out),
    )
    return out


def read_cells(
    w: Float[Tensor, "M J"],
    cells: Int[Tensor, "M J"],
    base: Float[Tensor, "N Dv"] | None,
    index: Int[Tensor, "S N"],
    rows: Float[Tensor, "R Dv"],
) -> Float[Tensor, "M Dv"]:
    """Add up  sum_j w_j V[cell_j], cells numbered through all streams (stream * N + slot)."""
    out = w.new_empty(w.shape[0], rows.shape[1])
    if runs_triton(w):
        from fwpkm.ops.answer import triton

        triton.read_cells(w, cells, base, index, rows, out)
        return out
    from fwpkm.ops.answer.loops import read
    from fwpkm.ops.threads import run_range

    own = rows[:0] if base is None else base
    run_range(read, w.shape[0], w, cells, own, index, rows, out, smallest=_FEWEST_READS)
    return out


def put_token(
    q: Float[Tensor, "B T Dq"],
    v: Float[Tensor, "B T Dv"],
    gate: Float[Tensor, "B T"] | None,
    mask: Float[Tensor, "B T"] | None,
    line: Float[Tensor, "B capacity W"],
    place: Int[Tensor, " B"],
) -> bool:
    """Write one token of each stream to line[b, place_b], one launch for all, and move its place on by one.

    Returns:
        False, and nothing was done, where there is no such launch: kernels do not run, or there are more tokens.
    """
    fits = line.is_contiguous() and q.shape[1] == 1 and q.shape[2] + v.shape[2] + 2 == line.shape[2]
    if not fits or torch.is_grad_enabled() or torch.compiler.is_compiling() or not runs_triton(line):
        return False
    from fwpkm.ops.answer import triton

    triton.put_token(q, v, gate, mask, line, place)
    return True
