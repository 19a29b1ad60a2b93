"""Mean cross-entropy of the next token, without all logits in memory at once."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORED = -100
"""Target of tokens that do not count, as in torch."""
MAX_LOGITS = 2**24
"""Logits that are in memory at once, at most (64 MiB in float32); at least one token's."""


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

    Logits of a few tokens at a time, computed again in the backward pass. Added up in float32 or wider;
    0 if no target counts.
    """
    h, target = hidden.flatten(0, 1), targets.flatten()
    rows = max(1, MAX_LOGITS // head_weight.shape[0])
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    total = torch.zeros((), dtype=dtype, device=hidden.device)
    for part, wanted in zip(h.split(rows), target.split(rows), strict=True):
        total = total + checkpoint(_summed, part, head_weight, wanted, dtype, use_reentrant=False)
    return total / (target != IGNORED).sum().clamp_min(1)


def _summed(h: Tensor, head_weight: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
    return F.cross_entropy((h @ head_weight.T).to(dtype), target, reduction="sum", ignore_index=IGNORED)
