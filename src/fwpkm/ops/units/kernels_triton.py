"""Normalised rows as Triton kernels: a program takes whole rows; gradients of weights are parts, one a program."""

from typing import no_type_check

import triton
import triton.language as tl

from fwpkm.ops.answer import TINY_VARIANCE
from fwpkm.ops.units.constants import NEAR_ZERO

_NEAR_ZERO: tl.constexpr = tl.constexpr(NEAR_ZERO)  # as an argument it would be a float32, in float64 too
_TINY_VARIANCE: tl.constexpr = tl.constexpr(TINY_VARIANCE)


@triton.jit
@no_type_check
def block_of_rows(i_block, M, D, BM: tl.constexpr, BD: tl.constexpr):
    """Return a block's rows, which of them there are, where their numbers are, and which of these there are."""
    o_m, o_d = i_block * BM + tl.arange(0, BM), tl.arange(0, BD)
    m_m = o_m < M
    return o_m, m_m, o_m.to(tl.int64)[:, None] * D + o_d[None, :], m_m[:, None] & (o_d < D)[None, :]


@triton.jit
@no_type_check
def load_vector(vector, D, ACC: tl.constexpr, BD: tl.constexpr):
    """Return what is the same for all rows: [1, BD]."""
    o_d = tl.arange(0, BD)
    return tl.load(vector + o_d, mask=o_d < D, other=0).to(ACC)[None, :]


@triton.jit
@no_type_check
def inverse_rms(b_x, D, EPS: tl.constexpr):
    """Return  r = 1 / sqrt(mean x^2 + eps)  of each row."""
    return 1 / tl.sqrt(tl.sum(b_x * b_x, axis=1) / D + EPS)


@triton.jit
@no_type_check
def pull_back(b_x, b_r, b_dy, D):
    """Return what dy, the gradient of  x r , wants of x."""
    b_along = tl.sum(b_dy * b_x, axis=1) / D * b_r * b_r * b_r
    return b_dy * b_r[:, None] - b_along[:, None] * b_x


@triton.jit
@no_type_check
def units_kernel(
    x, w_0, w_1, w_2, vector, out_0, out_1, out_2, dots, M, D,
    COUNT: tl.constexpr, DOTS: tl.constexpr, EPS: tl.constexpr, SHIFT: tl.constexpr,
    ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out_c = x r (shift + w_c)  for the first COUNT ;  dots = x r . vector  if DOTS."""
    o_m, m_m, at, mask = block_of_rows(tl.program_id(0), M, D, BM, BD)
    b_x = tl.load(x + at, mask=mask, other=0).to(ACC)
    b_unit = b_x * inverse_rms(b_x, D, EPS)[:, None]
    if COUNT > 0:
        tl.store(out_0 + at, b_unit * (SHIFT + load_vector(w_0, D, ACC, BD)), mask=mask)
    if COUNT > 1:
        tl.store(out_1 + at, b_unit * (SHIFT + load_vector(w_1, D, ACC, BD)), mask=mask)
    if COUNT > 2:
        tl.store(out_2 + at, b_unit * (SHIFT + load_vector(w_2, D, ACC, BD)), mask=mask)
    if DOTS:
        tl.store(dots + o_m, tl.sum(b_unit * load_vector(vector, D, ACC, BD), axis=1), mask=m_m)


@triton.jit
@no_type_check
def gated_units_kernel(
    x, w_0, w_1, w_gate, logits, bias, out_0, out_1, gate, M, D,
    NUM_LOGITS: tl.constexpr, BIAS: tl.constexpr, EPS: tl.constexpr,
    ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out_c = x r (1 + w_c) ;  gate = sigmoid(mean over logits of  x r (1 + w_gate) . logits_i + bias_i) ."""
    o_m, m_m, at, mask = block_of_rows(tl.program_id(0), M, D, BM, BD)
    b_x = tl.load(x + at, mask=mask, other=0).to(ACC)
    b_unit = b_x * inverse_rms(b_x, D, EPS)[:, None]
    tl.store(out_0 + at, b_unit * (1 + load_vector(w_0, D, ACC, BD)), mask=mask)
    tl.store(out_1 + at, b_unit * (1 + load_vector(w_1, D, ACC, BD)), mask=mask)
    b_unit = b_unit * (1 + load_vector(w_gate, D, ACC, BD))
    b_sum = tl.zeros([BM], dtype=ACC)
    for i in range(NUM_LOGITS):
        b_sum += tl.sum(b_unit * load_vector(logits + i * D, D, ACC, BD), axis=1)
        if BIAS:
            b_sum += tl.load(bias + i).to(ACC)
    tl.store(gate + o_m, 1 / (1 + tl.exp(-b_sum / NUM_LOGITS)), mask=m_m)


@triton.jit
@no_type_check
def units_back_kernel(
    x, w_0, w_1, w_2, vector, g_0, g_1, g_2, d_dots, dx, parts, M, D,
    COUNT: tl.constexpr, DOTS: tl.constexpr, EPS: tl.constexpr, SHIFT: tl.constexpr,
    ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """dx from all that came;  parts[program, c] = its rows' sum of  g_c x r , behind them that of  d_dots x r ."""
    b_0, b_1 = tl.zeros([BM, BD], dtype=ACC), tl.zeros([BM, BD], dtype=ACC)
    b_2, b_vector = tl.zeros([BM, BD], dtype=ACC), tl.zeros([BM, BD], dtype=ACC)
    for i_block in range(tl.program_id(0), tl.cdiv(M, BM), tl.num_programs(0)):
        o_m, m_m, at, mask = block_of_rows(i_block, M, D, BM, BD)
        b_x = tl.load(x + at, mask=mask, other=0).to(ACC)
        b_r = inverse_rms(b_x, D, EPS)
        b_unit = b_x * b_r[:, None]
        b_dy = tl.zeros([BM, BD], dtype=ACC)
        if COUNT > 0:
            b_g = tl.load(g_0 + at, mask=mask, other=0).to(ACC)
            b_dy += b_g * (SHIFT + load_vector(w_0, D, ACC, BD))
            b_0 += b_g * b_unit
        if COUNT > 1:
            b_g = tl.load(g_1 + at, mask=mask, other=0).to(ACC)
            b_dy += b_g * (SHIFT + load_vector(w_1, D, ACC, BD))
            b_1 += b_g * b_unit
        if COUNT > 2:
            b_g = tl.load(g_2 + at, mask=mask, other=0).to(ACC)
            b_dy += b_g * (SHIFT + load_vector(w_2, D, ACC, BD))
            b_2 += b_g * b_unit
        if DOTS:
            b_to = tl.load(d_dots + o_m, mask=m_m, other=0).to(ACC)[:, None]
            b_dy += b_to * load_vector(vector, D, ACC, BD)
            b_vector += b_to * b_unit
        tl.store(dx + at, pull_back(b_x, b_r, b_dy, D), mask=mask)
    own = parts + tl.program_id(0).to(tl.int64) * (COUNT + DOTS) * D
    if COUNT > 0:
        store_part(own, b_0, D, BD)
    if COUNT > 1:
        store_part(own + D, b_1, D, BD)
    if COUNT > 2:
        store_part(own + 2 * D, b_2, D, BD)
    if DOTS:
        store_part(own + COUNT * D, b_vector, D, BD)


@triton.jit
@no_type_check
def store_part(part, b_x, D, BD: tl.constexpr):
    """Store the sum over a block's rows."""
    o_d = tl.arange(0, BD)
    tl.store(part + o_d, tl.sum(b_x, axis=0), mask=o_d < D)


@triton.jit
@no_type_check
def normalise_kernel(
    x, out, factor, M, D, ZSCORE: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr
):
    """out = x / |x| , or, if ZSCORE,  (x - mean) / deviation ;  factor = what it was multiplied with."""
    o_m, m_m, at, mask = block_of_rows(tl.program_id(0), M, D, BM, BD)
    b_x = tl.load(x + at, mask=mask, other=0).to(ACC)
    if ZSCORE:
        b_x = tl.where(mask, b_x - (tl.sum(b_x, axis=1) / D)[:, None], 0)
    b_square = tl.sum(b_x * b_x, axis=1)
    if ZSCORE:
        b_square = b_square / (D - 1)
        b_square = tl.where(b_square < _TINY_VARIANCE, _TINY_VARIANCE, b_square)  # NaN is not
        b_factor = 1 / (tl.sqrt(b_square) + _NEAR_ZERO)
    else:
        b_factor = 1 / tl.sqrt(b_square + _NEAR_ZERO)
    tl.store(out + at, b_x * b_factor[:, None], mask=mask)
    tl.store(factor + o_m, b_factor, mask=m_m)


@triton.jit
@no_type_check
def normalise_back_kernel(
    y, factor, g, dx, M, D, ZSCORE: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr
):
    """dx = f (g - (g . y) y) , or, without its mean,  f g - (g . y) y / (deviation (D - 1)) ."""
    o_m, m_m, at, mask = block_of_rows(tl.program_id(0), M, D, BM, BD)
    b_y = tl.load(y + at, mask=mask, other=0).to(ACC)
    b_g = tl.load(g + at, mask=mask, other=0).to(ACC)
    b_factor = tl.load(factor + o_m, mask=m_m, other=1).to(ACC)
    b_along = tl.sum(b_y * b_g, axis=1)
    if ZSCORE:
        b_deviation = 1 / b_factor - _NEAR_ZERO
        constant = b_deviation * b_deviation <= 1.001 * _TINY_VARIANCE
        b_along = tl.where(constant, 0, b_along / (tl.where(constant, 1, b_deviation) * (D - 1)))
    else:
        b_along = b_along * b_factor
    b_dx = b_factor[:, None] * b_g - b_along[:, None] * b_y
    if ZSCORE:
        b_dx = b_dx - (tl.sum(tl.where(mask, b_dx, 0), axis=1) / D)[:, None]
    tl.store(dx + at, b_dx, mask=mask)


@triton.jit
@no_type_check
def mixture(v_hat, v, gate, o_m, m_m, at, mask, GATED: tl.constexpr, ACC: tl.constexpr):
    """Return  v + g (v^ - v) , or  v^ + v , with v^, v and g."""
    b_hat = tl.load(v_hat + at, mask=mask, other=0).to(ACC)
    b_v = tl.load(v + at, mask=mask, other=0).to(ACC)
    if GATED:
        b_gate = tl.load(gate + o_m, mask=m_m, other=0).to(ACC)[:, None]
        b_mixed = b_v + b_gate * (b_hat - b_v)
    else:
        b_gate = tl.full(m_m.shape, 1, dtype=ACC)[:, None]
        b_mixed = b_hat + b_v
    return b_mixed, b_hat, b_v, b_gate


@triton.jit
@no_type_check
def mix_kernel(
    v_hat, v, gate, weight, out, M, D,
    GATED: tl.constexpr, EPS: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out = unit_rms(mixture) (1 + weight) ."""
    o_m, m_m, at, mask = block_of_rows(tl.program_id(0), M, D, BM, BD)
    b_x, _, _, _ = mixture(v_hat, v, gate, o_m, m_m, at, mask, GATED, ACC)
    b_unit = b_x * inverse_rms(b_x, D, EPS)[:, None]
    tl.store(out + at, b_unit * (1 + load_vector(weight, D, ACC, BD)), mask=mask)


@triton.jit
@no_type_check
def mix_back_kernel(
    v_hat, v, gate, weight, g, d_hat, dv, d_gate, parts, M, D,
    GATED: tl.constexpr, EPS: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients of  mix ; parts[program] is its rows' part of the weight's."""
    b_part = tl.zeros([BM, BD], dtype=ACC)
    for i_block in range(tl.program_id(0), tl.cdiv(M, BM), tl.num_programs(0)):
        o_m, m_m, at, mask = block_of_rows(i_block, M, D, BM, BD)
        b_x, b_hat, b_v, b_gate = mixture(v_hat, v, gate, o_m, m_m, at, mask, GATED, ACC)
        b_r = inverse_rms(b_x, D, EPS)
        b_g = tl.load(g + at, mask=mask, other=0).to(ACC)
        b_part += b_g * b_x * b_r[:, None]
        b_dx = pull_back(b_x, b_r, b_g * (1 + load_vector(weight, D, ACC, BD)), D)
        tl.store(d_hat + at, b_gate * b_dx, mask=mask)
        if GATED:
            tl.store(dv + at, (1 - b_gate) * b_dx, mask=mask)
            tl.store(d_gate + o_m, tl.sum(b_dx * (b_hat - b_v), axis=1), mask=m_m)
        else:
            tl.store(dv + at, b_dx, mask=mask)
    store_part(parts + tl.program_id(0).to(tl.int64) * D, b_part, D, BD)
