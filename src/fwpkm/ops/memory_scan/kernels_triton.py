"""The backward of one chunk of the memory scan, in two launches: nothing reads what the same launch writes."""

from typing import no_type_check

import triton
import triton.language as tl

from fwpkm.ops.rows_triton import difference


@triton.jit
@no_type_check
def undo_kernel(
    V, G, rows, a, v_hat, target, d_target, da, num_tokens, size_target, J, D,
    ATOMIC: tl.constexpr, ACC: tl.constexpr, BJ: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """u = sum_j a_j G[row_j] ;  d target = u ;  da_j = - G[row_j] . e ;  V[row_j] += a_j e  if ATOMIC."""
    i_t, i_d = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_d = i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    b_e = difference(v_hat, target, size_target, i_t, D, o_d, m_d, ACC)
    b_u = tl.zeros([BD], dtype=ACC)
    for first in range(0, J, BJ):
        o_j = first + tl.arange(0, BJ)
        m_j = o_j < J
        b_row = tl.load(rows + i_t * J + o_j, mask=m_j, other=0).to(tl.int64)
        b_a = tl.load(a + i_t * J + o_j, mask=m_j, other=0).to(ACC)
        at, mask = b_row[:, None] * D + o_d[None, :], m_j[:, None] & m_d[None, :]
        b_g = tl.load(G + at, mask=mask, other=0).to(ACC)
        b_u += tl.sum(b_a[:, None] * b_g, axis=0)
        tl.store(da + (i_d * num_tokens + i_t) * J + o_j, -tl.sum(b_g * b_e[None, :], axis=1), mask=m_j)
        if ATOMIC:
            tl.atomic_add(V + at, b_a[:, None] * b_e[None, :], mask=mask, sem="relaxed")
    tl.store(d_target + i_t * D + o_d, b_u, mask=m_d)


@triton.jit
@no_type_check
def unread_kernel(
    V, G, rows, w, d_v_hat, d_target, dw, num_tokens, size_target, J, D,
    ATOMIC: tl.constexpr, ACC: tl.constexpr, BJ: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """d v^ = d_v_hat - u ;  dw_j = V[row_j] . d v^ ;  G[row_j] += w_j d v^  if ATOMIC."""
    i_t, i_d = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_d = i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    b_d = difference(d_v_hat, d_target, size_target, i_t, D, o_d, m_d, ACC)
    for first in range(0, J, BJ):
        o_j = first + tl.arange(0, BJ)
        m_j = o_j < J
        b_row = tl.load(rows + i_t * J + o_j, mask=m_j, other=0).to(tl.int64)
        at, mask = b_row[:, None] * D + o_d[None, :], m_j[:, None] & m_d[None, :]
        b_v = tl.load(V + at, mask=mask, other=0).to(ACC)
        tl.store(dw + (i_d * num_tokens + i_t) * J + o_j, tl.sum(b_v * b_d[None, :], axis=1), mask=m_j)
        if ATOMIC:
            b_w = tl.load(w + i_t * J + o_j, mask=m_j, other=0).to(ACC)
            tl.atomic_add(G + at, b_w[:, None] * b_d[None, :], mask=mask, sem="relaxed")
