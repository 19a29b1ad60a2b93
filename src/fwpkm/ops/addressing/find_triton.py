"""One launch from queries to slots: scores by matrix product, the halves' best, and the best pairs of these."""

from typing import no_type_check

import triton
import triton.language as tl

from fwpkm.ops.addressing.constants import IDW_EPS

_EPS: tl.constexpr = tl.constexpr(IDW_EPS)  # as an argument it would be a float32, in float64 too
LOWEST: tl.constexpr = tl.constexpr(-3.0e38)
"""Below it only what is no candidate: so that minus infinity as a score keeps a place of its own."""


@triton.jit
@no_type_check
def find_slots_kernel(
    q, keys, squares, best, slot, place, s, i, M, H, n, d, keys_stride, squares_stride,
    K: tl.constexpr, KP: tl.constexpr, IDW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Find the best slots of a block of tokens of one head of one stream.

    q [S, M, H, 2 d] ; keys [S, 2, H, n, d] ; best, slot [S, M, H, K] ; place, s, i [S, 2, H, M, K].
    """
    blocks = tl.cdiv(M, BM)
    i_m, i_g = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    i_a, i_h = (i_g // H).to(tl.int64), i_g % H
    o_m, o_k = i_m * BM + tl.arange(0, BM), tl.arange(0, KP)
    m_m = o_m < M
    own_q = q + ((i_a * M + o_m) * H + i_h) * 2 * d
    own_keys, own_squares = keys + i_a * keys_stride, squares + i_a * squares_stride
    at_0, at_1 = i_h * n, (H + i_h) * n
    near_0, id_0, bad_0 = best_of_half(
        own_q,
        own_keys + at_0.to(tl.int64) * d,
        own_squares + at_0,
        m_m,
        n,
        d,
        K,
        KP,
        IDW,
        ACC,
        PRECISION,
        BM,
        BN,
        BK,
    )
    near_1, id_1, bad_1 = best_of_half(
        own_q + d,
        own_keys + at_1.to(tl.int64) * d,
        own_squares + at_1,
        m_m,
        n,
        d,
        K,
        KP,
        IDW,
        ACC,
        PRECISION,
        BM,
        BN,
        BK,
    )
    if IDW:
        near_0 = nearness_to_score(near_0, own_q, m_m, d, ACC, BM, BK)
        near_1 = nearness_to_score(near_1, own_q + d, m_m, d, ACC, BM, BK)
    value, row, column = best_pairs(near_0, near_1, K, KP, ACC, BM)
    found = pick(id_0, row, KP, BM).to(tl.int64) * n + pick(id_1, column, KP, BM)
    nan = float("nan")
    mask = m_m[:, None] & (o_k < K)[None, :]
    at = ((i_a * M + o_m) * H + i_h)[:, None] * K + o_k[None, :]
    tl.store(best + at, tl.where((bad_0 | bad_1)[:, None] != 0, nan, value), mask=mask)
    tl.store(slot + at, found, mask=mask)
    half_0, half_1 = (i_a * 2 * H + i_h) * M, ((i_a * 2 + 1) * H + i_h) * M
    at_0, at_1 = (half_0 + o_m)[:, None] * K + o_k[None, :], (half_1 + o_m)[:, None] * K + o_k[None, :]
    tl.store(s + at_0, tl.where(bad_0[:, None] != 0, nan, near_0), mask=mask)
    tl.store(s + at_1, tl.where(bad_1[:, None] != 0, nan, near_1), mask=mask)
    tl.store(i + at_0, id_0.to(tl.int64), mask=mask)
    tl.store(i + at_1, id_1.to(tl.int64), mask=mask)
    tl.store(place + at_0, row.to(tl.int64), mask=mask)
    tl.store(place + at_1, column.to(tl.int64), mask=mask)


@triton.jit
@no_type_check
def best_of_half(
    q, keys, squares, m_m, n, d,
    K: tl.constexpr, KP: tl.constexpr, IDW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Return the best  2 q . K - |K|^2  ("idw") or  q . K  of n sub-keys, their ids, and which tokens met a NaN."""
    b_best = tl.full([BM, KP], float("-inf"), dtype=ACC)
    b_id = tl.zeros([BM, KP], dtype=tl.int32)
    b_bad = tl.zeros([BM], dtype=tl.int32)
    for first in range(0, n, BN):
        o_n = first + tl.arange(0, BN)
        m_n = o_n < n
        b_near = tl.zeros([BM, BN], dtype=ACC)
        for start in range(0, d, BK):
            o_d = start + tl.arange(0, BK)
            m_d = o_d < d
            b_q = tl.load(q[:, None] + o_d[None, :], mask=m_m[:, None] & m_d[None, :], other=0).to(ACC)
            at = o_n.to(tl.int64)[None, :] * d + o_d[:, None]
            b_keys = tl.load(keys + at, mask=m_n[None, :] & m_d[:, None], other=0).to(ACC)
            b_near = tl.dot(b_q, b_keys, b_near, input_precision=PRECISION, out_dtype=ACC)
        if IDW:
            b_near = 2 * b_near - tl.load(squares + o_n, mask=m_n, other=0).to(ACC)[None, :]
        b_nan = (b_near != b_near) & m_n[None, :]
        b_bad = b_bad | tl.max(b_nan.to(tl.int32), axis=1)
        b_near = tl.where(b_nan | (b_near < LOWEST), LOWEST, b_near)
        b_near = tl.where(m_n[None, :], b_near, float("-inf"))
        b_best, b_id = merge(b_best, b_id, b_near, first, K, KP, ACC, BM, BN)
    return b_best, b_id, b_bad


@triton.jit
@no_type_check
def merge(
    b_best, b_id, b_near, first,
    K: tl.constexpr, KP: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Return the best of what was best so far and of a block of candidates, best first; earlier ones win ties."""
    o_k, o_n = tl.arange(0, KP)[None, :], tl.arange(0, BN)[None, :]
    b_new = tl.full([BM, KP], float("-inf"), dtype=ACC)
    b_new_id = tl.zeros([BM, KP], dtype=tl.int32)
    for j in range(K):
        old, old_at = tl.max(b_best, axis=1, return_indices=True)
        new, new_at = tl.max(b_near, axis=1, return_indices=True)
        keep = old >= new
        b_chosen = tl.where(keep, pick_one(b_id, old_at, KP), first + new_at)
        b_new = tl.where(o_k == j, tl.where(keep, old, new)[:, None], b_new)
        b_new_id = tl.where(o_k == j, b_chosen[:, None], b_new_id)
        b_best = tl.where((o_k == old_at[:, None]) & keep[:, None], float("-inf"), b_best)
        b_near = tl.where((o_n == new_at[:, None]) & (keep == 0)[:, None], float("-inf"), b_near)
    return b_new, b_new_id


@triton.jit
@no_type_check
def pick_one(b_x, at, KP: tl.constexpr):
    """Return  x[t, at_t]  of every row; integers."""
    o_k = tl.arange(0, KP)[None, :]
    return tl.sum(tl.where(o_k == at[:, None], b_x, 0), axis=1)


@triton.jit
@no_type_check
def pick(b_x, b_at, KP: tl.constexpr, BM: tl.constexpr):
    """Return  x[t, at_tj]  of every row; integers."""
    b_out = tl.zeros([BM, KP], dtype=tl.int32)
    for k in range(KP):
        own = pick_one(b_x, tl.full([BM], k, dtype=tl.int32), KP)
        b_out = tl.where(b_at == k, own[:, None], b_out)
    return b_out


@triton.jit
@no_type_check
def nearness_to_score(b_near, q, m_m, d, ACC: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr):
    """-log(eps + |q|^2 - near)  of the winners only."""
    b_square = tl.zeros([BM], dtype=ACC)
    for start in range(0, d, BK):
        o_d = start + tl.arange(0, BK)
        b_q = tl.load(q[:, None] + o_d[None, :], mask=m_m[:, None] & (o_d < d)[None, :], other=0).to(ACC)
        b_square += tl.sum(b_q * b_q, axis=1)
    b_distance = b_square[:, None] - b_near
    return -tl.log(tl.where(b_distance > 0, b_distance, 0) + _EPS)


@triton.jit
@no_type_check
def best_pairs(b_row, b_column, K: tl.constexpr, KP: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr):
    """Return the K best sums of two halves' scores, best first, and their places in the halves.

    Both halves come best first, so pair (a, b) is beaten by (a + 1)(b + 1) - 1 others.
    """
    o_p = tl.arange(0, KP * KP)[None, :]
    b_pair = tl.reshape(b_row[:, :, None] + b_column[:, None, :], [BM, KP * KP])
    candidate = (o_p // KP + 1) * (o_p % KP + 1) <= K
    b_pair = tl.where(candidate, tl.where(b_pair < LOWEST, LOWEST, b_pair), float("-inf"))
    b_value, b_at = top(b_pair, K, KP, ACC, BM, KP * KP)
    return b_value, b_at // KP, b_at % KP


@triton.jit
@no_type_check
def top(b_x, K: tl.constexpr, KP: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Return the K largest of every row and their places, largest first; of equals the first. Uses up `b_x`."""
    o_k, o_n = tl.arange(0, KP)[None, :], tl.arange(0, BN)[None, :]
    b_value = tl.full([BM, KP], float("-inf"), dtype=ACC)
    b_at = tl.zeros([BM, KP], dtype=tl.int32)
    for j in range(K):
        value, at = tl.max(b_x, axis=1, return_indices=True)
        b_value = tl.where(o_k == j, value[:, None], b_value)
        b_at = tl.where(o_k == j, at[:, None], b_at)
        b_x = tl.where(o_n == at[:, None], float("-inf"), b_x)
    return b_value, b_at
