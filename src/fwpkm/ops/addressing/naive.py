"""Addressing as the definition says it: all N slots scored, gradients by autograd, any float dtype."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.addressing.constants import IDW_EPS, ScoreKind

ENTROPY_EPS = 1e-8
"""Keeps log p finite for sub-keys that nobody reads (authors' release)."""


def sub_key_scores_naive(
    q: Float[Tensor, "M H Dk"], keys: Float[Tensor, "2 H n half"], score: ScoreKind
) -> tuple[Float[Tensor, "M H n"], Float[Tensor, "M H n"]]:
    r"""Score every sub-key of both halves.

    "idw": s = -log(1e-3 + |q - K|^2);  "dot": s = q . K  (FwPKM, arXiv:2601.00671v2, Sec. 3).
    """
    halves = q.unflatten(-1, (2, -1)).unbind(-2)
    if score == "dot":
        s1, s2 = (torch.einsum("mhd,hnd->mhn", x, k) for x, k in zip(halves, keys, strict=True))
    else:
        s1, s2 = (
            -torch.log(IDW_EPS + (x[:, :, None, :] - k).square().sum(-1))
            for x, k in zip(halves, keys, strict=True)
        )
    return s1, s2


def slot_scores_naive(
    q: Float[Tensor, "M H Dk"], keys: Float[Tensor, "2 H n half"], score: ScoreKind
) -> Float[Tensor, "M H N"]:
    """Score all N = n*n slots: slot i*n + j scores s1_i + s2_j."""
    s1, s2 = sub_key_scores_naive(q, keys, score)
    return (s1[..., :, None] + s2[..., None, :]).flatten(-2)


def product_key_topk_naive(
    q: Float[Tensor, "M H Dk"], keys: Float[Tensor, "2 H n half"], topk: int, score: ScoreKind
) -> tuple[Float[Tensor, "M H k"], Int[Tensor, "M H k"]]:
    """Return scores and ids of the `topk` best slots, best first, by scoring every slot."""
    best = slot_scores_naive(q, keys, score).topk(topk, dim=-1)
    return best.values, best.indices


def product_key_topk_plain(
    q: Float[Tensor, "M H Dk"], keys: Float[Tensor, "2 H n half"], topk: int, score: ScoreKind
) -> tuple[Float[Tensor, "M H k"], Int[Tensor, "M H k"]]:
    """Do the same through the halves' best `topk` rows and columns, in operations autograd can differentiate twice."""
    rows, cols = (s.topk(topk, dim=-1) for s in sub_key_scores_plain(q, keys, score))
    grid = (rows.values[..., :, None] + cols.values[..., None, :]).flatten(-2)
    slot = (rows.indices[..., :, None] * keys.shape[2] + cols.indices[..., None, :]).flatten(-2)
    best = grid.topk(topk, dim=-1)
    return best.values, slot.gather(-1, best.indices)


def sub_key_scores_plain(
    q: Float[Tensor, "M H Dk"], keys: Float[Tensor, "2 H n half"], score: ScoreKind
) -> tuple[Float[Tensor, "M H n"], Float[Tensor, "M H n"]]:
    """Score every sub-key of both halves by matrix products: |q - K|^2 = |q|^2 - 2 q . K + |K|^2."""
    x = q.unflatten(-1, (2, -1)).permute(2, 1, 0, 3)  # [2, H, M, half]
    inner = x @ keys.transpose(-1, -2)
    if score == "idw":
        squares = x.square().sum(-1)[..., None] + keys.square().sum(-1)[..., None, :]
        inner = -torch.log(IDW_EPS + (squares - 2 * inner).clamp_min(0))
    s1, s2 = inner.transpose(1, 2)
    return s1, s2


def addressing_loss_naive(
    q: Float[Tensor, "M H Dk"], keys: Float[Tensor, "2 H n half"], topk: int, score: ScoreKind
) -> Float[Tensor, ""]:
    r"""Return L_addr = -H(p1) - H(p2), low when the sub-keys are used evenly.

    p is the mean, over all M tokens and H heads, of the softmax over each row's best `topk` sub-key
    scores  (FwPKM, arXiv:2601.00671v2, marginal entropy). Heads are pooled: D6.
    """
    loss = q.new_zeros(())
    for s in sub_key_scores_plain(q, keys, score):
        rows = s.flatten(0, 1)  # [M*H, n]
        best = rows.topk(topk, dim=-1)
        kept = torch.full_like(rows, float("-inf")).scatter(-1, best.indices, best.values)
        p = kept.softmax(dim=-1).mean(dim=0)
        loss = loss + (p * torch.log(p + ENTROPY_EPS)).sum()
    return loss


def key_step_naive(
    q: Float[Tensor, "M H Dk"],
    keys: Float[Tensor, "2 H n half"],
    topk: int,
    score: ScoreKind,
    lr: float,
) -> Float[Tensor, "2 H n half"]:
    """Take one gradient step on the addressing loss, K - lr dL_addr/dK, itself differentiable twice."""
    with torch.enable_grad():
        leaf = keys if keys.requires_grad else keys.detach().requires_grad_()
        loss = addressing_loss_naive(q, leaf, topk, score)
        (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
        return keys - lr * grad
