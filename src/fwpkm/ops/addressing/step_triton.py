"""The entropy step of the sub-keys and its backward; README.md derives the gradients. One program a token and half."""

from typing import no_type_check

import triton
import triton.language as tl

from fwpkm.ops.addressing.constants import ENTROPY_EPS

_EPS: tl.constexpr = tl.constexpr(ENTROPY_EPS)


@triton.jit
@no_type_check
def shares(s, o_k, K: tl.constexpr, ACC: tl.constexpr):
    """Return a token's kept scores and P, their softmax."""
    b_s = tl.load(s + o_k, mask=o_k < K, other=float("-inf")).to(ACC)
    b_e = tl.where(o_k < K, tl.exp(b_s - tl.max(b_s, axis=0)), 0)
    return b_s, b_e / tl.sum(b_e, axis=0)


@triton.jit
@no_type_check
def locate(M, H):
    """Return this program's token, group (stream, half, head), stream's half, stream, half and head."""
    i_m, i_g = tl.program_id(0) % M, (tl.program_id(0) // M).to(tl.int64)
    return i_m, i_g, i_g // H, i_g // (2 * H), i_g // H % 2, i_g % H


@triton.jit
@no_type_check
def pool_kernel(s, i, p, M, H, n, K: tl.constexpr, KP: tl.constexpr, ACC: tl.constexpr):
    """p[sub-key] += P / (M H), the heads together."""
    i_m, i_g, i_half, _, _, _ = locate(M, H)
    o_k, at = tl.arange(0, KP), (i_g * M + i_m) * K
    _, b_share = shares(s + at, o_k, K, ACC)
    b_id = tl.load(i + at + o_k, mask=o_k < K, other=0)
    tl.atomic_add(p + i_half * n + b_id, b_share / (M * H), mask=o_k < K, sem="relaxed")


@triton.jit
@no_type_check
def phi(p, b_id, m_k, ACC: tl.constexpr):
    """Return  log(p + eps) + p / (p + eps)  of sub-keys."""
    b_p = tl.load(p + b_id, mask=m_k, other=1).to(ACC)
    return tl.log(b_p + _EPS) + b_p / (b_p + _EPS)


@triton.jit
@no_type_check
def step_kernel(
    s, i, p, q, total, c_sum, M, H, n, d, T,
    K: tl.constexpr, KP: tl.constexpr, IDW: tl.constexpr, ACC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """total[sub-key] += c q ;  c_sum[sub-key] += c , with c = dL/ds times  2 exp(s)  for "idw".

    The first M of T tokens take part; s, i [S, 2, H, M, K], q [S, T, H, 2 d].
    """
    i_m, i_g, i_half, i_a, half, i_h = locate(M, H)
    o_k, at = tl.arange(0, KP), (i_g * M + i_m) * K
    m_k = o_k < K
    b_s, b_share = shares(s + at, o_k, K, ACC)
    b_id = tl.load(i + at + o_k, mask=m_k, other=0)
    b_z = phi(p + i_half * n, b_id, m_k, ACC)
    b_c = b_share * (b_z - tl.sum(b_share * b_z, axis=0)) / (M * H)
    if IDW:
        b_c = b_c * tl.where(m_k, 2 * tl.exp(b_s), 0)
    row = i_g * n + b_id
    tl.atomic_add(c_sum + row, b_c, mask=m_k, sem="relaxed")
    own_q = q + ((i_a * T + i_m) * H + i_h) * 2 * d + half * d
    for start in range(0, d, BD):
        o_d = start + tl.arange(0, BD)
        b_q = tl.load(own_q + o_d, mask=o_d < d, other=0).to(ACC)
        mask = m_k[:, None] & (o_d < d)[None, :]
        tl.atomic_add(
            total + row[:, None] * d + o_d[None, :], b_c[:, None] * b_q[None, :], mask=mask, sem="relaxed"
        )


@triton.jit
@no_type_check
def towards_kernel(
    s, i, q, E, across, b, dp, M, H, n, d, T,
    K: tl.constexpr, KP: tl.constexpr, IDW: tl.constexpr, ACC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """b = E . ds/dK ;  dp[sub-key] += P (b - sum P b) / (M H)."""
    i_m, i_g, i_half, i_a, half, i_h = locate(M, H)
    o_k, at = tl.arange(0, KP), (i_g * M + i_m) * K
    m_k = o_k < K
    b_s, b_share = shares(s + at, o_k, K, ACC)
    b_id = tl.load(i + at + o_k, mask=m_k, other=0)
    row = i_g * n + b_id
    own_q = q + ((i_a * T + i_m) * H + i_h) * 2 * d + half * d
    b_b = tl.zeros([KP], dtype=ACC)
    for start in range(0, d, BD):
        o_d = start + tl.arange(0, BD)
        b_q = tl.load(own_q + o_d, mask=o_d < d, other=0).to(ACC)
        mask = m_k[:, None] & (o_d < d)[None, :]
        b_e = tl.load(E + row[:, None] * d + o_d[None, :], mask=mask, other=0).to(ACC)
        b_b += tl.sum(b_e * b_q[None, :], axis=1)
    if IDW:
        b_across = tl.load(across + row, mask=m_k, other=0).to(ACC)
        b_b = (b_b - b_across) * tl.where(m_k, 2 * tl.exp(b_s), 0)
    tl.store(b + at + o_k, b_b, mask=m_k)
    b_dz = b_share * (b_b - tl.sum(b_share * b_b, axis=0)) / (M * H)
    tl.atomic_add(dp + i_half * n + b_id, b_dz, mask=m_k, sem="relaxed")


@triton.jit
@no_type_check
def slopes_kernel(
    d_best, place, s, i, p, q, keys, E, b, dp, dq, total, c_sum, e_sum, M, H, n, d, STEPS, keys_stride,
    K: tl.constexpr, KP: tl.constexpr, IDW: tl.constexpr, STEP: tl.constexpr, ACC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """From dL/d best: dq, and the sums from which dL/dK follows; the first STEPS tokens took part in the key step."""
    i_m, i_g, i_half, i_a, half, i_h = locate(M, H)
    o_k, at = tl.arange(0, KP), (i_g * M + i_m) * K
    m_k = o_k < K
    b_s = tl.load(s + at + o_k, mask=m_k, other=0).to(ACC)
    b_id = tl.load(i + at + o_k, mask=m_k, other=0)
    b_place = tl.load(place + at + o_k, mask=m_k, other=-1)
    b_given = tl.load(d_best + ((i_a * M + i_m) * H + i_h) * K + o_k, mask=m_k, other=0).to(ACC)
    b_c = tl.sum(tl.where(b_place[None, :] == o_k[:, None], b_given[None, :], 0), axis=1)
    b_e = tl.zeros([KP], dtype=ACC)
    inverse = tl.where(m_k, 2 * tl.exp(b_s), 0)
    own = i_g * n + b_id
    if STEP:
        first = (i_g * STEPS + i_m) * K
        m_own = m_k & (o_k < (STEPS - i_m) * KP)  # none for tokens that only read
        _, b_share = shares(s + at, o_k, K, ACC)
        b_b = tl.load(b + first + o_k, mask=m_own, other=0).to(ACC)
        b_z = phi(p + i_half * n, b_id, m_k, ACC)
        z_mean, b_mean = tl.sum(b_share * b_z, axis=0), tl.sum(b_share * b_b, axis=0)
        b_dp = tl.load(dp + i_half * n + b_id, mask=m_k, other=0).to(ACC)
        b_dP = tl.where(m_own, (b_b * (b_z - z_mean) - b_z * b_mean + b_dp) / (STEPS * H), 0)
        b_e = tl.where(m_own, b_share * (b_z - z_mean) / (STEPS * H), 0)
        b_c += tl.where(m_own, b_share * (b_dP - tl.sum(b_share * b_dP, axis=0)), 0)
        if IDW:
            b_c += b_b * b_e
            b_e = b_e * inverse
            tl.atomic_add(e_sum + own, b_e, mask=m_own, sem="relaxed")
    if IDW:
        b_c = b_c * inverse
        tl.atomic_add(c_sum + own, b_c, mask=m_k, sem="relaxed")
    group = i_g % (2 * H)
    own_key = i_a * keys_stride + (group * n + b_id) * d
    at_q = ((i_a * M + i_m) * H + i_h) * 2 * d + half * d
    for start in range(0, d, BD):
        o_d = start + tl.arange(0, BD)
        m_d = o_d < d
        mask = m_k[:, None] & m_d[None, :]
        b_q = tl.load(q + at_q + o_d, mask=m_d, other=0).to(ACC)
        b_key = tl.load(keys + own_key[:, None] + o_d[None, :], mask=mask, other=0).to(ACC)
        b_dq = tl.sum(b_c[:, None] * b_key, axis=0)
        if IDW:
            b_dq -= tl.sum(b_c, axis=0) * b_q
        at_row = own[:, None] * d + o_d[None, :]
        if STEP:
            b_E = tl.load(E + at_row, mask=mask, other=0).to(ACC)
            b_dq += tl.sum(b_e[:, None] * b_E, axis=0)
        tl.store(dq + at_q + o_d, b_dq, mask=m_d)
        tl.atomic_add(total + at_row, b_c[:, None] * b_q[None, :], mask=mask, sem="relaxed")
