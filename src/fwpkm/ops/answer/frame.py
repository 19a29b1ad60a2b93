"""The arithmetic around a memory for a few tokens: norms, gate and mixture, each in one compiled call.

The definition is `fwpkm.layers.frame`, which any number of tokens may use.
"""

import math
from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.ops.answer import TINY_VARIANCE
from fwpkm.ops.jit import jit
from fwpkm.ops.threads import array_of

NORMS = {"none": 0, "l2": 1, "zscore": 2}


def scaled_units(x: Float[Tensor, "B T D"], eps: float, *weights: Float[Tensor, " D"]) -> list[Tensor]:
    """Return  unit_rms(x) (1 + weight)  for every weight."""
    out = x.new_empty(len(weights), *x.shape)
    flat = array_of(out).reshape(len(weights), -1, x.shape[-1])
    given = array_of(x).reshape(-1, x.shape[-1])
    for i, weight in enumerate(weights):
        _scaled_units(given, eps, array_of(weight), flat[i])
    return list(out.unbind())


def normalised_(v: Float[Tensor, "B T Dv"], kind: str) -> Float[Tensor, "B T Dv"]:
    """Normalise the last dimension in place: see `fwpkm.layers.frame.normalise`."""
    _normalise(array_of(v).reshape(-1, v.shape[-1]), NORMS[kind])
    return v


def mixed_units(
    v_hat: Float[Tensor, "B T Dv"],
    v: Float[Tensor, "B T Dv"],
    gate: Float[Tensor, "B T"] | None,
    eps: float,
    weight: Float[Tensor, " Dv"],
) -> Float[Tensor, "B T Dv"]:
    """Return  unit_rms(g v^ + (1 - g) v) (1 + weight) , without a gate of  v^ + v ."""
    out = torch.empty_like(v)
    width = v.shape[-1]
    a, b, c = (array_of(t).reshape(-1, width) for t in (v_hat, v, out))
    gates = array_of(v[..., 0] if gate is None else gate).reshape(-1)
    _mixed_units(a, b, gates, gate is not None, eps, array_of(weight), c)
    return out


@jit
@no_type_check
def _scaled_units(x, eps, weight, out):
    for m in range(x.shape[0]):
        _scale_to_unit(x[m], eps, weight, out[m])


@jit
@no_type_check
def _scale_to_unit(x, eps, weight, out):
    total = x.dtype.type(0)
    for d in range(x.shape[0]):
        total += x[d] * x[d]
    inverse = x.dtype.type(1 / math.sqrt(total / x.shape[0] + eps))
    for d in range(x.shape[0]):
        out[d] = x[d] * inverse * (1 + weight[d])


@jit
@no_type_check
def _normalise(v, kind):
    width = v.shape[1]
    for m in range(v.shape[0]):
        row, mean, square = v[m], v.dtype.type(0), v.dtype.type(0)
        if kind == 2:
            mean = row.sum() / v.dtype.type(width)
        for d in range(width):
            row[d] -= mean
            square += row[d] * row[d]
        factor = v.dtype.type(1)
        if kind == 1:
            factor = v.dtype.type(1 / math.sqrt(square + 1e-6))
        elif kind == 2:
            factor = v.dtype.type(1 / (math.sqrt(max(square / (width - 1), TINY_VARIANCE)) + 1e-6))
        for d in range(width):
            row[d] *= factor


@jit
@no_type_check
def _mixed_units(v_hat, v, gate, gated, eps, weight, out):
    for m in range(v.shape[0]):
        row = out[m]
        for d in range(row.shape[0]):
            row[d] = v[m, d] + gate[m] * (v_hat[m, d] - v[m, d]) if gated else v_hat[m, d] + v[m, d]
        _scale_to_unit(row, eps, weight, row)
