"""Spans of tokens that may overlap, cut so that their gradients are added up in one tensor.

Plain slicing would give every span a gradient as long as the whole sequence.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

Span = tuple[int, int]


def take_spans(x: Shaped[Tensor, "B L *rest"], spans: Sequence[Span]) -> list[Tensor]:
    """Return x[:, first:last] for every span."""
    if len(spans) == 1 or not (x.requires_grad and torch.is_grad_enabled()):
        return [x[:, first:last] for first, last in spans]
    return list(_TakeSpans.apply(x, tuple(spans)))


class _TakeSpans(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, spans: tuple[Span, ...]) -> tuple[Tensor, ...]:
        return tuple(x[:, first:last] for first, last in spans)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, tuple[Span, ...]], output: tuple[Tensor, ...]) -> None:
        x, ctx.spans = inputs
        ctx.shape = x.shape
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        given = [(span, g) for span, g in zip(ctx.spans, grads, strict=True) if g is not None]
        if not given:
            return None, None
        total = given[0][1].new_zeros(ctx.shape)
        for (first, last), g in given:
            total[:, first:last] += g
        return total, None
