"""Normalised rows with gradients in closed form, by compiled loops on a CPU and by kernels on a GPU.

`fwpkm.layers` spells them out in plain PyTorch. Kernels widen what they read and narrow what they write; compiled loops
want all of one precision.
"""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from fwpkm.ops.apply import apply
from fwpkm.ops.backend import runs_compiled, runs_triton
from fwpkm.ops.units.constants import KINDS

_PLAIN = (Tensor, nn.Parameter)
_MOST_COLUMNS = 8192
"""Of a row, which one program of a kernel holds."""


def can_normalise(x: Float[Tensor, "*B D"], *others: Tensor | None) -> bool:
    """Return whether there is a form for plain tensors like these."""
    if torch.compiler.is_compiling() or not x.numel() or _is_transformed():
        return False
    narrow = reads_narrow(x)
    if not (narrow or runs_compiled(x)):
        return False
    if type(x) not in _PLAIN:
        return False
    dtype, device, width = x.dtype, x.device, x.shape[-1]
    for t in others:
        if t is None:
            continue
        if type(t) not in _PLAIN or t.device != device or not (narrow or t.dtype == dtype):
            return False
        if not (t.dim() and t.shape[-1] == width) and t.shape != x.shape[:-1]:
            return False
    return True


def reads_narrow(x: Float[Tensor, "*B D"]) -> bool:
    """Return whether what normalises rows like these widens them itself, and may be given several precisions."""
    return not torch.compiler.is_compiling() and x.shape[-1] <= _MOST_COLUMNS and runs_triton(x)


def can_gate(x: Float[Tensor, "*B D"]) -> bool:
    """Return whether `gated_units` is there for rows like these, of which nobody wants gradients."""
    return reads_narrow(x) and not torch.is_grad_enabled() and forward_ad._current_level < 0


def _is_transformed() -> bool:
    """Return whether a transform of torch.func is under way, which wants PyTorch's own operations."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def scaled_units(
    x: Float[Tensor, "*B D"], eps: float, *weights: Float[Tensor, " D"], shift: float = 1.0
) -> tuple[Float[Tensor, "*B D"], ...]:
    """Return  unit_rms(x) (shift + weight)  for every weight, at most three; differentiable once."""
    return apply(_ScaledUnits, x, eps, shift, None, *weights)


def scaled_units_and_dots(
    x: Float[Tensor, "*B D"], eps: float, vector: Float[Tensor, " D"], *weights: Float[Tensor, " D"]
) -> tuple[Tensor, ...]:
    """Return  unit_rms(x) (1 + weight)  for every weight, then  unit_rms(x) . vector  [*B]; differentiable once.

    Of narrow rows the dots are float32.
    """
    return apply(_ScaledUnits, x, eps, 1.0, vector, *weights)


def gated_units(
    x: Float[Tensor, "*B D"],
    eps: float,
    gate_weight: Float[Tensor, " D"],
    logits: Float[Tensor, "G D"],
    bias: Float[Tensor, " G"] | None,
    weights: tuple[Float[Tensor, " D"], Float[Tensor, " D"]],
) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B D"], Float[Tensor, "*B"]]:
    """Return  unit_rms(x) (1 + weight)  for both weights, and the gate.

        g = sigmoid(mean of the G logits  logits_i . unit_rms(x) (1 + gate_weight) + bias_i)

    Without gradients, and only where `can_gate` says so. The gate is float32, of float64 rows float64.
    """
    from fwpkm.ops.units import triton

    return triton.gated(x, eps, gate_weight, logits, bias, weights)


def normalised(
    x: Float[Tensor, "*B D"], kind: str, dtype: torch.dtype | None = None
) -> Float[Tensor, "*B D"]:
    """Normalise the last dimension, "l2" or "zscore": see `fwpkm.layers.frame.normalise`; differentiable once.

    Only where `reads_narrow` says so may `dtype`, of what is returned, differ from that of `x`.
    """
    return apply(_Normalised, x, KINDS[kind], dtype or x.dtype)[0]


def mixed_units(
    v_hat: Float[Tensor, "*B D"],
    v: Float[Tensor, "*B D"],
    gate: Float[Tensor, "*B"] | None,
    eps: float,
    weight: Float[Tensor, " D"],
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*B D"]:
    """Return  unit_rms(g v^ + (1 - g) v) (1 + weight) , without a gate of  v^ + v ; differentiable once.

    Only where `reads_narrow` says so may `dtype`, of what is returned, differ from that of `v`.
    """
    return apply(_MixedUnits, v_hat, v, gate, eps, weight, dtype or v.dtype)


def _form(x: Tensor) -> ModuleType:
    return _load("triton" if runs_triton(x) else "numba")


@cache
def _load(form: str) -> ModuleType:
    return import_module(f"fwpkm.ops.units.{form}")


class _ScaledUnits(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, eps: float, shift: float, vector: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        return _form(x).scale(x, eps, shift, vector, weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.eps, ctx.shift, vector, *weights = inputs
        ctx.form = _form(x)  # whatever is chosen until the backward
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, vector, *weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, vector, *weights = ctx.saved_tensors
        dx, d_vector, found = ctx.form.scale_back(x, ctx.eps, ctx.shift, vector, weights, grads)
        return dx, None, None, d_vector, *found


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, kind: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return _form(x).normalise(x, kind, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.kind, _ = inputs
        ctx.form, ctx.dtype = _form(x), x.dtype
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor, _: Any) -> tuple[Tensor, None, None]:
        y, factor = ctx.saved_tensors
        return ctx.form.normalise_back(y, factor, ctx.kind, g, ctx.dtype), None, None


class _MixedUnits(torch.autograd.Function):
    @staticmethod
    def forward(
        v_hat: Tensor, v: Tensor, gate: Tensor | None, eps: float, weight: Tensor, dtype: torch.dtype
    ) -> Tensor:
        return _form(v).mix(v_hat, v, gate, eps, weight, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        v_hat, v, gate, ctx.eps, weight, _ = inputs
        ctx.form = _form(v)
        ctx.save_for_backward(v_hat, v, gate, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        v_hat, v, gate, weight = ctx.saved_tensors
        d_hat, dv, d_gate, d_weight = ctx.form.mix_back(v_hat, v, gate, ctx.eps, weight, g)
        return d_hat, dv, d_gate, None, d_weight, None
