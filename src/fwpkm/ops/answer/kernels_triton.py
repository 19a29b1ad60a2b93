"""A token answered in one launch: address, weigh and read. One program a token."""

from typing import no_type_check

import triton
import triton.language as tl

from fwpkm.ops.addressing.find_triton import LOWEST, best_pairs, nearness_to_score, pick, top


@triton.jit
@no_type_check
def answer_kernel(
    q, keys, squares, base, index, rows, temperature, out, T, n, d, D, N,
    keys_stride, squares_stride, index_stride,
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
        own_q = q + (i_t * H + h) * 2 * d
        own_keys, own_squares = keys + i_b * keys_stride, squares + i_b * squares_stride
        near_0, id_0 = half_of_token(
            own_q, own_keys + h * n * d, own_squares + h * n, n, d, K, KP, IDW, ACC, BN, BK
        )
        near_1, id_1 = half_of_token(
            own_q + d,
            own_keys + (H + h) * n * d,
            own_squares + (H + h) * n,
            n,
            d,
            K,
            KP,
            IDW,
            ACC,
            BN,
            BK,
        )
        value, row, column = best_pairs(near_0, near_1, K, KP, ACC, 1)
        poisoned = tl.sum((near_0 != near_0).to(tl.int32) + (near_1 != near_1).to(tl.int32), axis=1)
        value = tl.where(poisoned[:, None] != 0, float("nan"), value)
        b_found = pick(id_0, row, KP, 1).to(tl.int64) * n + pick(id_1, column, KP, 1)
        b_score = tl.where((o_h == h)[:, None], value, b_score)
        b_slot = tl.where((o_h == h)[:, None], b_found, b_slot)
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
def half_of_token(
    q, keys, squares, n, d,
    K: tl.constexpr, KP: tl.constexpr, IDW: tl.constexpr, ACC: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Return one half's best scores [1, KP], best first, and their ids; all NaN if one is."""
    o_n = tl.arange(0, BN)
    m_n = o_n < n
    b_near = tl.zeros([BN], dtype=ACC)
    for start in range(0, d, BK):
        o_d = start + tl.arange(0, BK)
        m_d = o_d < d
        b_q = tl.load(q + o_d, mask=m_d, other=0).to(ACC)
        at = o_n.to(tl.int64)[:, None] * d + o_d[None, :]
        b_keys = tl.load(keys + at, mask=m_n[:, None] & m_d[None, :], other=0).to(ACC)
        b_near += tl.sum(b_keys * b_q[None, :], axis=1)
    if IDW:
        b_near = 2 * b_near - tl.load(squares + o_n, mask=m_n, other=0).to(ACC)
    b_nan = (b_near != b_near) & m_n
    b_near = tl.where(b_nan | (b_near < LOWEST), LOWEST, b_near)
    b_near = tl.where(m_n, b_near, float("-inf"))
    b_best, b_id = top(b_near[None, :], K, KP, ACC, 1, BN)
    if IDW:
        real = tl.arange(0, 1) < 1
        own_q = q + tl.arange(0, 1)
        b_best = nearness_to_score(b_best, own_q, real, d, ACC, 1, BK)
    return tl.where(tl.max(b_nan.to(tl.int32), axis=0) != 0, float("nan"), b_best), b_id


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
