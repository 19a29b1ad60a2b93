"""Normalised rows as Triton kernels, one launch each way; they read and write any precision and compute in float32.

float64 is computed in float64.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fwpkm.ops.launch_triton import num_multiprocessors, on_device
from fwpkm.ops.units.constants import ZSCORE
from fwpkm.ops.units.kernels_triton import (
    gated_units_kernel,
    mix_back_kernel,
    mix_kernel,
    normalise_back_kernel,
    normalise_kernel,
    units_back_kernel,
    units_kernel,
)

_TILE = 2048
"""Numbers of a block of rows."""
_PARTS = 4
"""Of a weight's gradient, for each multiprocessor."""


def scale(
    x: Tensor, eps: float, shift: float, vector: Tensor | None, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return  unit_rms(x) (shift + weight)  for every weight, then  unit_rms(x) . vector , if there is one."""
    x, out = x.contiguous(), [_fresh(x, x.dtype) for _ in weights]
    dots = [] if vector is None else [x.new_empty(x.shape[:-1], dtype=_wide(x))]
    M, D, how = _blocks(x)
    given = (x, *_padded(weights, x), *_padded([vector], x, 1), *_padded(out, x), *_padded(dots, x, 1))
    with on_device(x):
        units_kernel[(triton.cdiv(M, how["BM"]),)](
            *given, M, D, COUNT=len(weights), DOTS=bool(dots), EPS=eps, SHIFT=shift, **how
        )
    return (*out, *dots)


def gated(
    x: Tensor, eps: float, w_gate: Tensor, logits: Tensor, bias: Tensor | None, weights: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return  unit_rms(x) (1 + weight)  for both weights, and the gate; no gradients."""
    x = x.contiguous()
    out, gate = [_fresh(x, x.dtype) for _ in weights], x.new_empty(x.shape[:-1], dtype=_wide(x))
    M, D, how = _blocks(x)
    with on_device(x):
        gated_units_kernel[(triton.cdiv(M, how["BM"]),)](
            *(x, *_padded((*weights, w_gate, logits, bias), x, 5), *out, gate, M, D),
            NUM_LOGITS=logits.shape[0], BIAS=bias is not None, EPS=eps, **how,
        )  # fmt: skip
    return out[0], out[1], gate


def scale_back(
    x: Tensor,
    eps: float,
    shift: float,
    vector: Tensor | None,
    weights: Sequence[Tensor],
    grads: Sequence[Tensor | None],
) -> tuple[Tensor | None, Tensor | None, list[Tensor | None]]:
    """Return the gradients of x, of the vector and of each weight; None where no gradient came."""
    factors = [*weights] if vector is None else [*weights, vector]
    came = [i for i, g in enumerate(grads) if g is not None]
    has_dots = len(weights) in came
    found: list[Tensor | None] = [None for _ in factors]
    x, count = x.contiguous(), len(came) - has_dots
    dx, given = _fresh(x, x.dtype), [g.contiguous() for g in grads if g is not None]
    own, own_grads = [factors[i] for i in came[:count]], given[:count]
    (M, D, how), end = _blocks(x), slice(count, None)
    parts = _parts(x, M, how["BM"], len(came), D)
    pointers = (
        *(x, *_padded(own, x), *_padded([factors[i] for i in came[end]], x, 1)),
        *(*_padded(own_grads, x), *_padded(given[end], x, 1), dx, parts),
    )
    with on_device(x):
        units_back_kernel[(parts.shape[0],)](
            *pointers, M, D, COUNT=count, DOTS=has_dots, EPS=eps, SHIFT=shift, **how
        )
    for i, total in zip(came, parts.sum(0), strict=True):
        found[i] = total.to(factors[i].dtype)
    return dx, (None if vector is None else found.pop()), found


def normalise(x: Tensor, kind: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return normalised rows in `dtype`, and what each was multiplied with."""
    x, y = x.contiguous(), _fresh(x, dtype)
    M, D, how = _blocks(x, dtype)
    factor = x.new_empty(M, dtype=_wide(x, dtype))
    with on_device(x):
        normalise_kernel[(triton.cdiv(M, how["BM"]),)](x, y, factor, M, D, ZSCORE=kind == ZSCORE, **how)
    return y, factor


def normalise_back(y: Tensor, factor: Tensor, kind: int, g: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the gradient, in `dtype`, of what was normalised to y."""
    g, dx = g.contiguous(), _fresh(y, dtype)
    M, D, how = _blocks(y)
    with on_device(y):
        normalise_back_kernel[(triton.cdiv(M, how["BM"]),)](
            y, factor, g, dx, M, D, ZSCORE=kind == ZSCORE, **how
        )
    return dx


def mix(
    v_hat: Tensor, v: Tensor, gate: Tensor | None, eps: float, weight: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return  unit_rms(mixture) (1 + weight)  in `dtype`."""
    v_hat, v, weight, out = v_hat.contiguous(), v.contiguous(), weight.contiguous(), _fresh(v, dtype)
    M, D, how = _blocks(v, v_hat.dtype, dtype)
    gates = v if gate is None else gate.contiguous()
    with on_device(v):
        mix_kernel[(triton.cdiv(M, how["BM"]),)](
            v_hat, v, gates, weight, out, M, D, GATED=gate is not None, EPS=eps, **how
        )
    return out


def mix_back(
    v_hat: Tensor, v: Tensor, gate: Tensor | None, eps: float, weight: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return the gradients of v^, v, gate and weight."""
    v_hat, v, weight, g = (x.contiguous() for x in (v_hat, v, weight, g))
    d_hat, dv, gated = _fresh(v_hat, v_hat.dtype), _fresh(v, v.dtype), gate is not None
    gates, d_gate = (v, v) if gate is None else (gate.contiguous(), _fresh(gate, gate.dtype))
    M, D, how = _blocks(v, v_hat.dtype, g.dtype)
    parts = _parts(v, M, how["BM"], 1, D, v_hat.dtype, g.dtype)
    with on_device(v):
        mix_back_kernel[(parts.shape[0],)](
            v_hat, v, gates, weight, g, d_hat, dv, d_gate, parts, M, D, GATED=gated, EPS=eps, **how
        )
    return d_hat, dv, d_gate if gated else None, parts.sum((0, 1)).to(weight.dtype)


def row_blocks(num_rows: int, width: int) -> dict[str, int]:
    """Return how many rows and columns a program takes together, and its warps."""
    BD = triton.next_power_of_2(width)
    BM = max(1, min(triton.next_power_of_2(num_rows), _TILE // BD))
    return {"BM": BM, "BD": BD, "num_warps": max(4, BD // 512)}


def _blocks(x: Tensor, *others: torch.dtype) -> tuple[int, int, dict[str, Any]]:
    M, D = x.numel() // x.shape[-1], x.shape[-1]
    acc = tl.float64 if _wide(x, *others) == torch.float64 else tl.float32
    return M, D, {**row_blocks(M, D), "ACC": acc}


def _parts(x: Tensor, M: int, BM: int, count: int, D: int, *others: torch.dtype) -> Tensor:
    """Return room for parts of `count` weights' gradients: few, and a block of rows for each at least."""
    programs = min(triton.cdiv(M, BM), _PARTS * num_multiprocessors(x))
    return x.new_empty(programs, count, D, dtype=_wide(x, *others))


def _padded(given: Sequence[Tensor | None], x: Tensor, count: int = 3) -> list[Tensor]:
    """Return `count` tensors; where there are fewer, or None, another one that is not looked at."""
    own = [x if y is None else y.contiguous() for y in given]
    return own + [x] * (count - len(own))


def _fresh(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


def _wide(x: Tensor, *others: torch.dtype) -> torch.dtype:
    """Return what is computed in: float64 where anything is, else float32."""
    return torch.float64 if torch.float64 in (x.dtype, *others) else torch.float32
