"""The arithmetic around a memory for a few tokens: norms, gate and mixture, each in one compiled call.

The definition is `fwpkm.layers.frame`, which any number of tokens may use.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.ops.threads import array_of, array_of_weight
from fwpkm.ops.units import KINDS, loops


def scaled_units(x: Float[Tensor, "B T D"], eps: float, *weights: Float[Tensor, " D"]) -> list[Tensor]:
    """Return  unit_rms(x) (1 + weight)  for every weight."""
    given, out = _rows(x), x.new_empty(len(weights), *x.shape).unbind()
    for weight, y in zip(weights, out, strict=True):
        loops.units(0, len(given), 0, given, eps, array_of_weight(weight), 1.0, _rows(y))
    return list(out)


def normalised(x: Float[Tensor, "*B D"], kind: str) -> Float[Tensor, "*B D"]:
    """Normalise the last dimension: see `fwpkm.layers.frame.normalise`."""
    if kind == "none":
        return x
    given, out = _rows(x), torch.empty_like(x, memory_format=torch.contiguous_format)
    loops.normalise(0, len(given), 0, given, KINDS[kind], _rows(out), np.empty(len(given), dtype=given.dtype))
    return out


def mixed_units(
    v_hat: Float[Tensor, "B T Dv"],
    v: Float[Tensor, "B T Dv"],
    gate: Float[Tensor, "B T"] | None,
    eps: float,
    weight: Float[Tensor, " Dv"],
) -> Float[Tensor, "B T Dv"]:
    """Return  unit_rms(g v^ + (1 - g) v) (1 + weight) , without a gate of  v^ + v ."""
    out = torch.empty_like(v)
    given, gates = (_rows(v_hat), _rows(v)), array_of(v[..., 0] if gate is None else gate).reshape(-1)
    loops.mix(0, len(gates), 0, *given, gates, gate is not None, eps, array_of_weight(weight), _rows(out))
    return out


def _rows(x: Tensor) -> Any:
    return array_of(x).reshape(-1, x.shape[-1])
