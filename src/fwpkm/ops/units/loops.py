"""The compiled loops of normalised rows."""

import math
from typing import no_type_check

import numpy as np

from fwpkm.ops.answer import TINY_VARIANCE
from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.rows import inner
from fwpkm.ops.units.constants import NEAR_ZERO


@jit
@no_type_check
def units(first, last, part, x, eps, weight, shift, out):
    """out = x r (shift + weight) , r = 1 / sqrt(mean x^2 + eps) ."""
    one = x.dtype.type(shift)
    for m in range(first, last):
        scale_row_to_unit(x[m], inverse_rms(x[m], eps), weight, one, out[m])


@jit_inline
@no_type_check
def inverse_rms(row, eps):
    """Return r."""
    return row.dtype.type(1 / math.sqrt(inner(row, row, row.shape[0]) / row.shape[0] + eps))


@jit_inline
@no_type_check
def scale_row_to_unit(row, r, weight, shift, out):
    """out = row r (shift + weight) ."""
    for d in range(out.shape[0]):
        out[d] = row[d] * r * (shift + weight[d])


@jit_inline
@no_type_check
def pull_row_back(row, r, weight, shift, dy, out, dw):
    """out = what dy wants of the row;  dw += dy row r ."""
    total = row.dtype.type(0)
    for d in range(row.shape[0]):
        total += dy[d] * (shift + weight[d]) * row[d]
    along = r * r * r * total / row.dtype.type(row.shape[0])
    for d in range(out.shape[0]):
        out[d] = dy[d] * r * (shift + weight[d]) - along * row[d]
    for d in range(dw.shape[0]):
        dw[d] += dy[d] * r * row[d]


@jit
@no_type_check
def units_back(first, last, part, x, eps, weight, shift, dy, adds, dx, dw):
    """dx = (or, where it adds, +=) what dy wants of x;  dw[part] += what it wants of the weight."""
    one, room = x.dtype.type(shift), np.empty(x.shape[1], dtype=x.dtype)
    for m in range(first, last):
        r = inverse_rms(x[m], eps)
        if not adds:
            pull_row_back(x[m], r, weight, one, dy[m], dx[m], dw[part])
            continue
        pull_row_back(x[m], r, weight, one, dy[m], room, dw[part])
        out = dx[m]
        for d in range(out.shape[0]):
            out[d] += room[d]


@jit
@no_type_check
def unit_dots(first, last, part, x, eps, vector, out):
    """out = r x . vector ."""
    for m in range(first, last):
        out[m] = inverse_rms(x[m], eps) * inner(x[m], vector, vector.shape[0])


@jit
@no_type_check
def unit_dots_back(first, last, part, x, eps, vector, dy, adds, dx, dw):
    """dx = (or, where it adds, +=) what dy wants of x;  dw[part] += what it wants of the vector."""
    for m in range(first, last):
        row, out, to, r = x[m], dx[m], dw[part], inverse_rms(x[m], eps)
        scale = dy[m] * r
        along = scale * r * r * inner(row, vector, row.shape[0]) / x.dtype.type(row.shape[0])
        if adds:
            for d in range(out.shape[0]):
                out[d] += scale * vector[d] - along * row[d]
        else:
            for d in range(out.shape[0]):
                out[d] = scale * vector[d] - along * row[d]
        for d in range(to.shape[0]):
            to[d] += scale * row[d]


@jit
@no_type_check
def normalise(first, last, part, x, kind, out, factor):
    """out = x / |x|  (kind 1) or  (x - mean) / deviation  (kind 2);  factor = what it was multiplied with."""
    width = x.shape[1]
    for m in range(first, last):
        row, y, mean = x[m], out[m], x.dtype.type(0)
        if kind == 2:
            for d in range(width):
                mean += row[d]
            mean /= x.dtype.type(width)
        square = x.dtype.type(0)
        for d in range(y.shape[0]):
            y[d] = row[d] - mean
            square += y[d] * y[d]
        if kind == 1:
            f = x.dtype.type(1 / math.sqrt(square + NEAR_ZERO))
        else:
            f = x.dtype.type(1 / (math.sqrt(max(square / (width - 1), TINY_VARIANCE)) + NEAR_ZERO))
        factor[m] = f
        for d in range(y.shape[0]):
            y[d] *= f


@jit
@no_type_check
def normalise_back(first, last, part, y, factor, kind, dy, dx):
    """dx = f (dy - (dy . y) y)  (kind 1), or, without its mean,  f dy - (dy . y) y / (deviation (width - 1)) ."""
    width = y.shape[1]
    for m in range(first, last):
        own, g, out, f = y[m], dy[m], dx[m], factor[m]
        along, mean = inner(own, g, g.shape[0]), y.dtype.type(0)
        if kind == 1:
            along *= f
        else:
            deviation = 1 / f - NEAR_ZERO
            constant = deviation * deviation <= 1.001 * TINY_VARIANCE
            along = y.dtype.type(0) if constant else y.dtype.type(along / (deviation * (width - 1)))
        for d in range(out.shape[0]):
            out[d] = f * g[d] - along * own[d]
            mean += out[d]
        if kind == 2:
            mean /= y.dtype.type(width)
            for d in range(out.shape[0]):
                out[d] -= mean


@jit_inline
@no_type_check
def mix_row(v_hat, v, gate, gated, out):
    """out = v + g (v^ - v) , or  v^ + v ."""
    if gated:
        for d in range(out.shape[0]):
            out[d] = v[d] + gate * (v_hat[d] - v[d])
    else:
        for d in range(out.shape[0]):
            out[d] = v_hat[d] + v[d]


@jit
@no_type_check
def mix(first, last, part, v_hat, v, gate, gated, eps, weight, out):
    """out = unit_rms(mixture) (1 + weight) ."""
    row, one = np.empty(v.shape[1], dtype=v.dtype), v.dtype.type(1)
    for m in range(first, last):
        mix_row(v_hat[m], v[m], gate[m] if gated else one, gated, row)
        scale_row_to_unit(row, inverse_rms(row, eps), weight, one, out[m])


@jit
@no_type_check
def mix_back(first, last, part, v_hat, v, gate, gated, eps, weight, dy, d_hat, dv, d_gate, dw):
    """Gradients of  mix ."""
    row, one = np.empty(v.shape[1], dtype=v.dtype), v.dtype.type(1)
    pulled = np.empty(v.shape[1], dtype=v.dtype)
    for m in range(first, last):
        g = gate[m] if gated else one
        mix_row(v_hat[m], v[m], g, gated, row)
        pull_row_back(row, inverse_rms(row, eps), weight, one, dy[m], pulled, dw[part])
        to_hat, to_v, rest = d_hat[m], dv[m], one - g if gated else one
        for d in range(to_hat.shape[0]):
            to_hat[d] = g * pulled[d]
        for d in range(to_v.shape[0]):
            to_v[d] = rest * pulled[d]
        if gated:
            width = pulled.shape[0]
            d_gate[m] = inner(pulled, v_hat[m], width) - inner(pulled, v[m], width)
