"""The short convolution in plain PyTorch, or in compiled loops with a gradient in closed form."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fwpkm.ops.apply import apply
from fwpkm.ops.backend import runs_compiled

_FEWEST_NUMBERS = 1 << 17
"""Numbers that are worth a thread."""


def short_conv(full: Float[Tensor, "B S D"], weight: Float[Tensor, "D K"]) -> Float[Tensor, "B T D"]:
    """Return  y_t = sum_i weight_i full_{t + i}  for T = S - K + 1 tokens; both of one dtype, S >= K - 1."""
    plain = all(type(x) in (Tensor, nn.Parameter) for x in (full, weight))
    if plain and full.numel() and not torch.compiler.is_compiling() and runs_compiled(full):
        return apply(_ShortConv, full, weight)
    return _shifted_sum(full, weight)


def _shifted_sum(full: Tensor, weight: Tensor) -> Tensor:
    """Add up shifted copies, which beats a depthwise convolution kernel on the CPU."""
    taps = weight.unbind(-1)
    T = full.shape[1] - len(taps) + 1
    y = full[:, :T] * taps[0]
    for i, tap in enumerate(taps[1:], start=1):
        y = torch.addcmul(y, full[:, i : i + T], tap)
    return y


class _ShortConv(torch.autograd.Function):
    @staticmethod
    def forward(full: Tensor, weight: Tensor) -> Tensor:
        from fwpkm.ops.short_conv import loops
        from fwpkm.ops.threads import run_range

        (B, S, D), K = full.shape, weight.shape[1]
        y = full.new_empty(B, S - K + 1, D)
        run_range(loops.convolve, B * (S - K + 1), full, _taps(weight), y, smallest=_few(D))
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        from fwpkm.ops.short_conv import loops
        from fwpkm.ops.threads import run_spans, split_range

        full, weight = ctx.saved_tensors
        (B, S, D), taps = full.shape, _taps(weight)
        d_full, spans = full.new_empty(full.shape), split_range(B * S, smallest=_few(D))
        parts = taps.new_zeros(len(spans), *taps.shape)
        run_spans(loops.convolve_back, spans, full, taps, dy, d_full, parts)
        return d_full, parts.sum(0).t()


def _taps(weight: Tensor) -> Tensor:
    """Copy a parameter [D, K] to [K, D]: what NumPy has looked at can no longer be freed, and FSDP2 frees weights."""
    return weight.detach().t().clone(memory_format=torch.contiguous_format)


def _few(width: int) -> int:
    """Return how many rows of a width are worth a thread."""
    return max(1, _FEWEST_NUMBERS // width)
