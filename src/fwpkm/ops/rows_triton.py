"""Sums of a table's rows, and sums into them, by Triton.

Sums into rows come in two forms: atomic additions, in no particular order, and, where results must be reproducible
(torch.use_deterministic_algorithms), runs of pairs that were sorted by row, each added up by one program.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from fwpkm.ops.launch_triton import accumulator, column_block, on_device, pair_block

RUN_BLOCK = 8
"""Pairs of one row that are added up together."""


@triton.jit
@no_type_check
def read_rows_kernel(
    table, ids, w, out, J, D, ACC: tl.constexpr, BJ: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """out_t = sum_j w_tj table[ids_tj]; one program a token and block of columns."""
    i_t = tl.program_id(0).to(tl.int64)  # int64: tables pass 2**31 numbers
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = o_d < D
    b_out = tl.zeros([BD], dtype=ACC)
    for first in range(0, J, BJ):
        o_j = first + tl.arange(0, BJ)
        m_j = o_j < J
        b_id = tl.load(ids + i_t * J + o_j, mask=m_j, other=0).to(tl.int64)
        b_w = tl.load(w + i_t * J + o_j, mask=m_j, other=0).to(ACC)
        at, mask = b_id[:, None] * D + o_d[None, :], m_j[:, None] & m_d[None, :]
        b_out += tl.sum(b_w[:, None] * tl.load(table + at, mask=mask, other=0).to(ACC), axis=0)
    tl.store(out + i_t * D + o_d, b_out, mask=m_d)


@triton.jit
@no_type_check
def difference(x, y, size_y, i_t, D, o_d, m_d, ACC: tl.constexpr):
    """x_t - y_t, or x_t for the tokens beyond the end of `y`, which holds `size_y` numbers."""
    at = i_t * D + o_d
    b_x = tl.load(x + at, mask=m_d, other=0).to(ACC)
    return b_x - tl.load(y + at, mask=m_d & (at < size_y), other=0).to(ACC)


@triton.jit
@no_type_check
def add_pairs_kernel(
    table, ids, c, x, y, size_y, J, D,
    SIGN: tl.constexpr, ACC: tl.constexpr, BJ: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """table[ids_tj] += SIGN c_tj (x_t - y_t), in any order; one program a token and block of columns."""
    i_t = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = o_d < D
    b_x = SIGN * difference(x, y, size_y, i_t, D, o_d, m_d, ACC)
    for first in range(0, J, BJ):
        o_j = first + tl.arange(0, BJ)
        m_j = o_j < J
        b_id = tl.load(ids + i_t * J + o_j, mask=m_j, other=0).to(tl.int64)
        b_c = tl.load(c + i_t * J + o_j, mask=m_j, other=0).to(ACC)
        at, mask = b_id[:, None] * D + o_d[None, :], m_j[:, None] & m_d[None, :]
        tl.atomic_add(table + at, b_c[:, None] * b_x[None, :], mask=mask, sem="relaxed")


@triton.jit
@no_type_check
def add_runs_kernel(
    table, row, order, c, x, y, size_y, first, last, J, D,
    SIGN: tl.constexpr, ACC: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The same, reproducibly: the program of a run's first pair adds up all of it; the others have nothing to do."""
    p = first + tl.program_id(0).to(tl.int64)
    i_row = tl.load(row + p)
    before = tl.load(row + p - 1, mask=p > first, other=-1)
    if before != i_row:
        o_d = tl.program_id(1) * BD + tl.arange(0, BD)
        m_d = o_d < D
        b_sum = tl.zeros([BD], dtype=ACC)
        left = BP
        while left == BP:
            o_p = p + tl.arange(0, BP)
            m_p = o_p < last
            m_p = m_p & (tl.load(row + o_p, mask=m_p, other=-1) == i_row)
            pair = tl.load(order + o_p, mask=m_p, other=first) - first
            b_c = tl.load(c + pair, mask=m_p, other=0).to(ACC)
            i_t, mask = (pair // J)[:, None], m_p[:, None] & m_d[None, :]
            b_x = difference(x, y, size_y, i_t, D, o_d[None, :], mask, ACC)
            b_sum += tl.sum(b_c[:, None] * b_x, axis=0)
            left = tl.sum(m_p.to(tl.int32), axis=0)
            p += BP
        at = i_row.to(tl.int64) * D + o_d
        b_old = tl.load(table + at, mask=m_d, other=0).to(ACC)
        tl.store(table + at, b_old + SIGN * b_sum, mask=m_d)


@dataclass(frozen=True, slots=True, kw_only=True)
class SortedPairs:
    """The pairs (token, j) of several chunks, each chunk's sorted by the row they address."""

    row: Tensor
    order: Tensor
    """Place of each sorted pair among the flat pairs; a row's pairs keep the order of the tokens."""

    @classmethod
    def of(cls, ids: Tensor, counts: list[int], num_rows: int) -> "SortedPairs":
        """Sort the pairs of ids [T, J], whose first counts[0] tokens are the first chunk, and so on."""
        chunk = [torch.full((count,), c, device=ids.device) for c, count in enumerate(counts)]
        keys = (ids + torch.cat(chunk)[:, None] * num_rows).flatten()
        order = keys.sort(stable=True).indices
        return cls(row=ids.flatten()[order], order=order)


def read_rows(w: Tensor, ids: Tensor, table: Tensor, out: Tensor) -> Tensor:
    """Write  sum_j w_tj table[ids_tj]  to `out`."""
    T, J = ids.shape
    if T:
        grid, how = _launch(T, J, table)
        with on_device(table):
            read_rows_kernel[grid](table, ids, w, out, J, table.shape[1], **how)
    return out


def add_to_rows(
    table: Tensor,
    ids: Tensor,
    c: Tensor,
    x: Tensor,
    y: Tensor | None = None,
    *,
    sign: int = 1,
    ordered: SortedPairs | None = None,
    first: int = 0,
) -> None:
    """Add  sign c_tj (x_t - y_t)  to the rows ids_tj of `table`; `y` may hold fewer tokens than `x`.

    Args:
        table: Rows [R, D], edited.
        ids: Rows addressed [T, J].
        c: Factors [T, J].
        x: Addends [T, D].
        y: What is taken off those of the first tokens.
        sign: 1 or -1.
        ordered: Sorted pairs of all chunks, to add in a fixed order; None adds in any order.
        first: The first of this chunk's tokens among those that were sorted.
    """
    T, J = ids.shape
    if not T:
        return
    size_y = 0 if y is None else y.numel()
    grid, how = _launch(T, J, table)
    width, y = table.shape[1], x if y is None else y
    with on_device(table):
        if ordered is None:
            add_pairs_kernel[grid](table, ids, c, x, y, size_y, J, width, SIGN=sign, **how)
            return
        del how["BJ"]
        span, grid = (first * J, (first + T) * J), (T * J, grid[1])
        given = (table, ordered.row, ordered.order, c, x, y, size_y, *span, J, width)
        add_runs_kernel[grid](*given, SIGN=sign, BP=RUN_BLOCK, **how)


def _launch(T: int, J: int, table: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    width = table.shape[1]
    BD = column_block(width)
    return (T, triton.cdiv(width, BD)), {"ACC": accumulator(table), "BJ": pair_block(J, BD), "BD": BD}
