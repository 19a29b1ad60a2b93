"""Cross-entropy of the next token, without all logits in memory at once."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
"""Target of tokens that do not count, as in torch."""
MAX_LOGITS = 2**23
"""Logits that are in memory at once, at most (32 MiB in float32); at least one token's."""


class TokenLosses(NamedTuple):
    """Cross-entropies of N targets."""

    weighted: Float[Tensor, ""]
    """Sum of weight times cross-entropy, in float32 or wider. The only one that gradients flow through."""
    entropy: Float[Tensor, " N"]
    """Of each target; 0 for those that do not count."""
    right: Bool[Tensor, " N"]
    """Whether the target was the most likely token."""


def next_token_targets(
    labels: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"] | None = None
) -> Int[Tensor, "B T"]:
    """Return for each token the label of the next one, IGNORED for the last and where either is padding."""
    targets = labels.roll(-1, dims=1)
    counts = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask & mask.roll(-1, dims=1)
    counts[:, -1:] = False
    return targets.masked_fill(~counts, IGNORED)


def next_token_loss(
    hidden: Float[Tensor, "B T D"], head_weight: Float[Tensor, "V D"], targets: Int[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Average the cross-entropy of the logits  hidden @ head_weight.T  over all targets that count.

    As `token_losses`; 0 if no target counts.
    """
    target = targets.flatten()
    counts = target != IGNORED
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    weights = counts.to(dtype) / counts.sum().clamp_min(1)
    return token_losses(hidden.flatten(0, 1), head_weight, target, weights).weighted


def token_losses(
    hidden: Float[Tensor, "N D"],
    head_weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " N"],
    weights: Float[Tensor, " N"],
) -> TokenLosses:
    """Compute the cross-entropies of the logits  hidden @ head_weight.T, and their weighted sum.

    Logits of a few tokens at a time, computed once: gradients are made in the forward pass, from logits that are
    then dropped, and only scaled in the backward pass. Gradients cannot be differentiated again.

    Args:
        hidden: Hidden states.
        head_weight: What they are multiplied with; under autocast in its precision.
        targets: The tokens that came; IGNORED ones count nothing.
        weights: What each counts in the sum.
    """
    return TokenLosses(*_TokenLosses.apply(hidden, head_weight, targets, weights, torch.is_grad_enabled()))


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head_weight: Tensor, targets: Tensor, weights: Tensor, graph: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        wanted = [graph and wants for wants in ctx.needs_input_grad[:2]]
        grads = [
            torch.zeros_like(x) if w else None for x, w in zip((hidden, head_weight), wanted, strict=True)
        ]
        weights = weights.masked_fill(targets == IGNORED, 0)
        rows = max(1, MAX_LOGITS // head_weight.shape[0])
        found = []
        for start in range(0, max(1, hidden.shape[0]), rows):
            part = slice(start, start + rows)
            dh = None if grads[0] is None else grads[0][part]
            found.append(_losses(hidden[part], head_weight, targets[part], weights[part], dh, grads[1]))
        entropy, right = (torch.cat(x) for x in zip(*found, strict=True))
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(entropy, right)
        return (entropy * weights).sum(), entropy, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        dh, dw = (None if x is None else x * grad.to(x.dtype) for x in ctx.saved_tensors)
        return dh, dw, None, None, None


def _losses(
    h: Tensor, head_weight: Tensor, target: Tensor, weight: Tensor, dh: Tensor | None, dw: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return entropies and hits of a few tokens; write their `dh`, add to `dw`."""
    raw = h @ head_weight.T
    logits = raw.to(torch.promote_types(raw.dtype, torch.float32))
    log_p = F.log_softmax(logits, dim=-1)
    entropy = F.nll_loss(log_p, target, reduction="none", ignore_index=IGNORED)
    right = logits.argmax(-1) == target
    if dh is not None or dw is not None:
        d = log_p.exp_()
        d.scatter_add_(1, target.clamp_min(0)[:, None], d.new_full((len(target), 1), -1.0))
        d = d.mul_(weight[:, None]).to(raw.dtype)
        if dh is not None:
            dh.copy_(d @ head_weight)
        if dw is not None:
            dw.add_(d.T @ h)
    return entropy, right
