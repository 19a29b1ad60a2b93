"""Tokens answered one by one, in two launches: all multiprocessors rate sub-keys, then a program a token reads."""

from typing import no_type_check

import triton
import triton.language as tl

from fwpkm.ops.addressing.find_triton import LOWEST, best_pairs, nearness_to_score, top


@triton.jit
@no_type_check
def rate_kernel(
    q, keys, squares, near, T, n, d, keys_stride, squares_stride,
    H: tl.constexpr, IDW: tl.constexpr, ACC: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """near =  2 q . K - |K|^2  ("idw") or  q . K ; one program a block of sub-keys of one half, head and token.

    q [B T, H, 2 d] ; keys [S, 2, H, n, d] ; near [B T, H, 2, n].
    """
    blocks = tl.cdiv(n, BN)
    i_n, i_g = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    half, i_h, i_t = i_g % 2, i_g // 2 % H, i_g // (2 * H)
    i_b = i_t // T
    o_n = i_n * BN + tl.arange(0, BN)
    m_n, at_n = o_n < n, (half * H + i_h) * n + o_n
    own_keys = keys + i_b * keys_stride
    b_near = tl.zeros([BN], dtype=ACC)
    for start in range(0, d, BK):
        o_d = start + tl.arange(0, BK)
        m_d = o_d < d
        b_q = tl.load(q + i_g // 2 * 2 * d + half * d + o_d, mask=m_d, other=0).to(ACC)
        mask = m_n[:, None] & m_d[None, :]
        b_keys = tl.load(own_keys + at_n[:, None] * d + o_d[None, :], mask=mask, other=0).to(ACC)
        b_near += tl.sum(b_keys * b_q[None, :], axis=1)
    if IDW:
        b_near = 2 * b_near - tl.load(squares + i_b * squares_stride + at_n, mask=m_n, other=0).to(ACC)
    tl.store(near + i_g * n + o_n, b_near, mask=m_n)


@triton.jit
@no_type_check
def answer_kernel(
    q, near, base, index, rows, temperature, out, T, n, d, D, index_stride,
    H: tl.constexpr, HP: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, IDW: tl.constexpr, KIND: tl.constexpr,
    HAS_BASE: tl.constexpr, ACC: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out = sum_j w_j V[slot_j] , the rows from the stream's own or from the base under them."""
    i_t = tl.program_id(0).to(tl.int64)
    i_b = i_t // T
    o_h, o_k = tl.arange(0, HP), tl.arange(0, KP)
    b_score = tl.full([HP, KP], float("-inf"), dtype=ACC)
    b_slot = tl.zeros([HP, KP], dtype=tl.int64)
    for h in range(H):
        value, found = slots_of_head(
            q + (i_t * H + h) * 2 * d, near + (i_t * H + h) * 2 * n, n, d, K, KP, IDW, ACC, BN, BK
        )
        b_score = tl.where((o_h == h)[:, None], value, b_score)
        b_slot = tl.where((o_h == h)[:, None], found, b_slot)
    real = (o_h < H)[:, None] & (o_k < K)[None, :]
    b_w = tl.reshape(weigh(b_score / tl.load(temperature).to(ACC), real, KIND), [HP * KP])
    b_slot = tl.reshape(b_slot, [HP * KP])
    m_j = tl.reshape(real.to(tl.int32), [HP * KP]) != 0
    b_row = tl.load(index + i_b * index_stride + b_slot, mask=m_j, other=-1).to(tl.int64)
    for start in range(0, D, BD):
        o_d = start + tl.arange(0, BD)
        b_out = weighted_cells(b_w, b_slot, b_row, m_j, base, rows, D, o_d, HAS_BASE, ACC)
        tl.store(out + i_t * D + o_d, b_out, mask=o_d < D)


@triton.jit
@no_type_check
def slots_of_head(
    q, near, n, d,
    K: tl.constexpr, KP: tl.constexpr, IDW: tl.constexpr, ACC: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Return the scores and slots [1, KP] of one token's head, best first; all scores NaN if one is."""
    halves, o_n = tl.arange(0, 2), tl.arange(0, BN)
    m_n = (o_n < n)[None, :]
    b_near = tl.load(near + halves[:, None] * n + o_n[None, :], mask=m_n & (halves < 2)[:, None], other=0)
    b_nan = (b_near != b_near) & m_n
    b_near = tl.where(b_nan | (b_near < LOWEST), LOWEST, b_near)
    b_best, b_id = top(tl.where(m_n, b_near, float("-inf")), K, KP, ACC, 2, BN)
    if IDW:
        b_best = nearness_to_score(b_best, q + halves * d, halves < 2, d, ACC, 2, BK)
    value, row, column = best_pairs(of_half(b_best, 0), of_half(b_best, 1), K, KP, ACC, 1)
    poisoned = tl.max(tl.max(b_nan.to(tl.int32), axis=1), axis=0)
    found = gathered(of_half(b_id, 0), row, KP).to(tl.int64) * n + gathered(of_half(b_id, 1), column, KP)
    return tl.where(poisoned != 0, float("nan"), value), found


@triton.jit
@no_type_check
def of_half(b_x, half: tl.constexpr):
    """Return one of both rows: [1, KP]."""
    return tl.sum(tl.where(tl.arange(0, 2)[:, None] == half, b_x, 0), axis=0)[None, :]


@triton.jit
@no_type_check
def gathered(b_x, b_at, KP: tl.constexpr):
    """Return  x[0, at_j] ; integers."""
    o_k = tl.arange(0, KP)[None, None, :]
    return tl.sum(tl.where(b_at[:, :, None] == o_k, b_x[:, None, :], 0), axis=2)


@triton.jit
@no_type_check
def weigh(b_score, real, KIND: tl.constexpr):
    """Turn scores into read weights, zero where none is real; 0 softmax, 1 silu, 2 relu."""
    if KIND == 0:
        b_score = tl.where(real, b_score, float("-inf"))
        b_w = tl.exp(b_score - tl.max(tl.max(b_score, axis=1), axis=0))
        b_w = b_w / tl.sum(tl.sum(b_w, axis=1), axis=0)
    elif KIND == 1:
        b_w = b_score / (1 + tl.exp(-b_score))
    else:
        b_w = tl.where(b_score < 0, 0, b_score)
    return tl.where(real, b_w, 0)


@triton.jit
@no_type_check
def weighted_cells(b_w, b_slot, b_row, m_j, base, rows, D, o_d, HAS_BASE: tl.constexpr, ACC: tl.constexpr):
    """sum_j w_j V[j] , from the written rows, or from the base where there is none; no base is zeros."""
    m_d = (o_d < D)[None, :]
    at = b_row[:, None] * D + o_d[None, :]
    b_v = tl.load(rows + at, mask=(m_j & (b_row >= 0))[:, None] & m_d, other=0).to(ACC)
    if HAS_BASE:
        at = b_slot[:, None] * D + o_d[None, :]
        b_v += tl.load(base + at, mask=(m_j & (b_row < 0))[:, None] & m_d, other=0).to(ACC)
    return tl.sum(b_w[:, None] * b_v, axis=0)


@triton.jit
@no_type_check
def read_cells_kernel(
    w, cells, base, index, rows, out, J, D, N,
    HAS_BASE: tl.constexpr, ACC: tl.constexpr, BJ: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out_t = sum_j w_tj V[cell_tj] , cells numbered through all streams; one program a token and block of columns."""
    i_t = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    b_out = tl.zeros([BD], dtype=ACC)
    for first in range(0, J, BJ):
        o_j = first + tl.arange(0, BJ)
        m_j = o_j < J
        b_w = tl.load(w + i_t * J + o_j, mask=m_j, other=0).to(ACC)
        b_cell = tl.load(cells + i_t * J + o_j, mask=m_j, other=0)
        b_row = tl.load(index + b_cell, mask=m_j, other=-1).to(tl.int64)
        b_out += weighted_cells(b_w, b_cell % N, b_row, m_j, base, rows, D, o_d, HAS_BASE, ACC)
    tl.store(out + i_t * D + o_d, b_out, mask=o_d < D)


@triton.jit
@no_type_check
def put_token_kernel(
    q, v, gate, mask, line, place, capacity, DQ, DV, HAS_GATE: tl.constexpr, HAS_MASK: tl.constexpr, BW: tl.constexpr
):  # fmt: skip
    """line[b, place_b] = (q_b, v_b, gate_b or 1, mask_b or 1) , then  place_b += 1 ; one program a stream."""
    b = tl.program_id(0).to(tl.int64)
    p = tl.load(place + b)
    out = line + (b * capacity + p) * (DQ + DV + 2)
    for start in range(0, DQ, BW):
        o = start + tl.arange(0, BW)
        tl.store(out + o, tl.load(q + b * DQ + o, mask=o < DQ), mask=o < DQ)
    for start in range(0, DV, BW):
        o = start + tl.arange(0, BW)
        tl.store(out + DQ + o, tl.load(v + b * DV + o, mask=o < DV), mask=o < DV)
    tl.store(out + DQ + DV, tl.load(gate + b) if HAS_GATE else 1.0)
    tl.store(out + DQ + DV + 1, tl.load(mask + b) if HAS_MASK else 1.0)
    tl.debug_barrier()  # all warps have their place before it moves on
    tl.store(place + b, p + 1)
