"""Normalised rows as compiled loops, tokens shared out among threads."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fwpkm.ops.threads import array_of, array_of_weight, run_range, run_spans, split_range
from fwpkm.ops.units import loops

_FEWEST_NUMBERS = 1 << 17
"""Numbers that are worth a thread."""


def scale(
    x: Tensor, eps: float, shift: float, vector: Tensor | None, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return  unit_rms(x) (shift + weight)  for every weight, then  unit_rms(x) . vector , if there is one."""
    given, out = _rows(x), tuple(_fresh(x) for _ in weights)
    for weight, y in zip(weights, out, strict=True):
        _run(loops.units, x, given, eps, array_of_weight(weight), shift, _rows(y))
    if vector is None:
        return out
    dots = x.new_empty(x.shape[:-1])
    _run(loops.unit_dots, x, given, eps, array_of_weight(vector), dots.view(-1))
    return (*out, dots)


def scale_back(
    x: Tensor,
    eps: float,
    shift: float,
    vector: Tensor | None,
    weights: Sequence[Tensor],
    grads: Sequence[Tensor | None],
) -> tuple[Tensor | None, Tensor | None, list[Tensor | None]]:
    """Return the gradients of x, of the vector and of each weight; None where no gradient came."""
    given, dx, found, adds, spans = _rows(x), _fresh(x), list[Tensor | None](), False, _spans(x)
    factors = weights if vector is None else [*weights, vector]
    for number, (own, g) in enumerate(zip(factors, grads, strict=True)):
        if g is None:
            found.append(None)
            continue
        parts = own.new_zeros(len(spans), own.shape[0])
        out, weight = (adds, _rows(dx), parts), array_of_weight(own)
        if number == len(weights):
            run_spans(loops.unit_dots_back, spans, given, eps, weight, g.reshape(-1), *out)
        else:
            run_spans(loops.units_back, spans, given, eps, weight, shift, _rows(g), *out)
        found.append(parts.sum(0))
        adds = True
    d_vector = None if vector is None else found.pop()
    return (dx if adds else None), d_vector, found


def normalise(x: Tensor, kind: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return normalised rows, and what each was multiplied with; `dtype` is that of x."""
    y, factor = _fresh(x), x.new_empty(x.numel() // x.shape[-1])
    _run(loops.normalise, x, _rows(x), kind, _rows(y), factor)
    return y, factor


def normalise_back(y: Tensor, factor: Tensor, kind: int, g: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the gradient of what was normalised to y, which has its `dtype`."""
    dx = _fresh(y)
    _run(loops.normalise_back, y, _rows(y), factor, kind, _rows(g), _rows(dx))
    return dx


def mix(
    v_hat: Tensor, v: Tensor, gate: Tensor | None, eps: float, weight: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return  unit_rms(mixture) (1 + weight) ; `dtype` is that of v."""
    y, gates = _fresh(v), _gates(v, gate)
    given = (_rows(v_hat), _rows(v), gates, gate is not None, eps, array_of_weight(weight))
    _run(loops.mix, v, *given, _rows(y))
    return y


def mix_back(
    v_hat: Tensor, v: Tensor, gate: Tensor | None, eps: float, weight: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return the gradients of v^, v, gate and weight."""
    d_hat, dv, spans, gates = _fresh(v), _fresh(v), _spans(v), _gates(v, gate)
    parts, d_gate = weight.new_zeros(len(spans), weight.shape[0]), torch.empty_like(gates)
    given = (_rows(v_hat), _rows(v), gates, gate is not None, eps, array_of_weight(weight), _rows(g))
    run_spans(loops.mix_back, spans, *given, _rows(d_hat), _rows(dv), d_gate, parts)
    return d_hat, dv, None if gate is None else d_gate.view(gate.shape), parts.sum(0)


def _gates(v: Tensor, gate: Tensor | None) -> Tensor:
    return v.new_ones(1) if gate is None else gate.reshape(-1)


def _rows(x: Tensor) -> Any:
    return array_of(x).reshape(-1, x.shape[-1])


def _run(loop: Callable[..., object], x: Tensor, *args: Any) -> None:
    width = x.shape[-1]
    run_range(loop, x.numel() // width, *args, smallest=_few(width))


def _spans(x: Tensor) -> list[tuple[int, int]]:
    width = x.shape[-1]
    return split_range(x.numel() // width, smallest=_few(width))


def _few(width: int) -> int:
    """Return how many rows of a width are worth a thread."""
    return max(1, _FEWEST_NUMBERS // width)


def _fresh(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
