"""Normalised rows as compiled loops with gradients in closed form; `fwpkm.layers` spells them out in plain PyTorch."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fwpkm.ops.apply import apply
from fwpkm.ops.backend import runs_compiled
from fwpkm.ops.threads import array_of, array_of_weight, run_range, run_spans, split_range

_FEWEST_NUMBERS = 1 << 17
"""Numbers that are worth a thread."""
_PLAIN = (Tensor, nn.Parameter)
KINDS = {"l2": 1, "zscore": 2}


def can_normalise(x: Float[Tensor, "*B D"], *others: Tensor | None) -> bool:
    """Return whether the compiled loops are there for plain tensors like these, all of one precision."""
    if torch.compiler.is_compiling() or not x.numel() or not runs_compiled(x):
        return False
    dtype, device = x.dtype, x.device
    for t in (x, *others):
        if t is not None and (type(t) not in _PLAIN or t.dtype != dtype or t.device != device):
            return False
    return True


def scaled_units(
    x: Float[Tensor, "*B D"], eps: float, *weights: Float[Tensor, " D"], shift: float = 1.0
) -> tuple[Float[Tensor, "*B D"], ...]:
    """Return  unit_rms(x) (shift + weight)  for every weight; differentiable once."""
    return apply(_ScaledUnits, x, eps, shift, None, *weights)


def scaled_units_and_dots(
    x: Float[Tensor, "*B D"], eps: float, vector: Float[Tensor, " D"], *weights: Float[Tensor, " D"]
) -> tuple[Tensor, ...]:
    """Return  unit_rms(x) (1 + weight)  for every weight, then  unit_rms(x) . vector  [*B]; differentiable once."""
    return apply(_ScaledUnits, x, eps, 1.0, vector, *weights)


def normalised(x: Float[Tensor, "*B D"], kind: str) -> Float[Tensor, "*B D"]:
    """Normalise the last dimension, "l2" or "zscore": see `fwpkm.layers.frame.normalise`; differentiable once."""
    return apply(_Normalised, x, KINDS[kind])[0]


def mixed_units(
    v_hat: Float[Tensor, "*B D"],
    v: Float[Tensor, "*B D"],
    gate: Float[Tensor, "*B"] | None,
    eps: float,
    weight: Float[Tensor, " D"],
) -> Float[Tensor, "*B D"]:
    """Return  unit_rms(g v^ + (1 - g) v) (1 + weight) , without a gate of  v^ + v ; differentiable once."""
    return apply(_MixedUnits, v_hat, v, gate, eps, weight)


def _rows(x: Tensor) -> Any:
    return array_of(x).reshape(-1, x.shape[-1])


@cache
def _loop(name: str) -> Callable[..., object]:
    from fwpkm.ops.units import loops

    loop: Callable[..., object] = getattr(loops, name)
    return loop


def _run(kernel: str, x: Tensor, *args: Any) -> None:
    width = x.shape[-1]
    run_range(_loop(kernel), x.numel() // width, *args, smallest=_few(width))


def _spans(x: Tensor) -> list[tuple[int, int]]:
    width = x.shape[-1]
    return split_range(x.numel() // width, smallest=_few(width))


def _few(width: int) -> int:
    """Return how many rows of a width are worth a thread."""
    return max(1, _FEWEST_NUMBERS // width)


def _fresh(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


class _ScaledUnits(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, eps: float, shift: float, vector: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        given, out = _rows(x), tuple(_fresh(x) for _ in weights)
        for weight, y in zip(weights, out, strict=True):
            _run("units", x, given, eps, array_of_weight(weight), shift, _rows(y))
        if vector is None:
            return out
        dots = x.new_empty(x.shape[:-1])
        _run("unit_dots", x, given, eps, array_of_weight(vector), dots.view(-1))
        return (*out, dots)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.eps, ctx.shift, vector, *weights = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, vector, *weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, vector, *weights = ctx.saved_tensors
        given, dx, found, adds, spans = _rows(x), _fresh(x), list[Tensor | None](), False, _spans(x)
        factors = weights if vector is None else [*weights, vector]
        for number, (own, g) in enumerate(zip(factors, grads, strict=True)):
            if g is None:
                found.append(None)
                continue
            parts = own.new_zeros(len(spans), own.shape[0])
            out, weight = (adds, _rows(dx), parts), array_of_weight(own)
            if number == len(weights):
                run_spans(_loop("unit_dots_back"), spans, given, ctx.eps, weight, g.reshape(-1), *out)
            else:
                run_spans(_loop("units_back"), spans, given, ctx.eps, weight, ctx.shift, _rows(g), *out)
            found.append(parts.sum(0))
            adds = True
        d_vector = None if vector is None else found.pop()
        return (dx if adds else None), None, None, d_vector, *found


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, kind: int) -> tuple[Tensor, Tensor]:
        y, factor = _fresh(x), x.new_empty(x.numel() // x.shape[-1])
        _run("normalise", x, _rows(x), kind, _rows(y), factor)
        return y, factor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, ctx.kind = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor, _: Any) -> tuple[Tensor, None]:
        y, factor = ctx.saved_tensors
        dx = _fresh(y)
        _run("normalise_back", y, _rows(y), factor, ctx.kind, _rows(g), _rows(dx))
        return dx, None


class _MixedUnits(torch.autograd.Function):
    @staticmethod
    def forward(v_hat: Tensor, v: Tensor, gate: Tensor | None, eps: float, weight: Tensor) -> Tensor:
        y = _fresh(v)
        gates = v.new_ones(1) if gate is None else gate.reshape(-1)
        _run(
            "mix", v, _rows(v_hat), _rows(v), gates, gate is not None, eps, array_of_weight(weight), _rows(y)
        )
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        v_hat, v, gate, ctx.eps, weight = inputs
        ctx.save_for_backward(v_hat, v, gate, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        v_hat, v, gate, weight = ctx.saved_tensors
        d_hat, dv, spans = _fresh(v), _fresh(v), _spans(v)
        parts = weight.new_zeros(len(spans), weight.shape[0])
        gates = v.new_ones(1) if gate is None else gate.reshape(-1)
        d_gate = torch.empty_like(gates)
        given = (_rows(v_hat), _rows(v), gates, gate is not None, ctx.eps, array_of_weight(weight), _rows(g))
        run_spans(_loop("mix_back"), spans, *given, _rows(d_hat), _rows(dv), d_gate, parts)
        return d_hat, dv, None if gate is None else d_gate.view(gate.shape), None, parts.sum(0)
