"""Causal attention over keys that may reach back before the first query: full, or within a window."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_BLOCK = 64
"""Fewest queries that a window is computed for at once. Changes speed and rounding, never the result."""


def attend(
    q: Float[Tensor, "B T H Dh"],
    keys: Float[Tensor, "B S G Dh"],
    v: Float[Tensor, "B S G Dh"],
    *,
    window: int | None = None,
    missing: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, "B T H Dh"]:
    """Let the last T of S tokens attend to themselves and to what came before.

    Args:
        q: Queries of the last T tokens; H is a multiple of G, and H / G query heads share a key head.
        keys: Keys of S >= T >= 1 tokens.
        v: Values of the same tokens.
        window: Tokens that a query sees, itself included; None is all of them.
        missing: How many of the first S - T places hold no token; None is none.

    Returns:
        Softmax(q . k / sqrt(Dh)) v over the visible tokens.
    """
    T = q.shape[1]
    if window is not None:
        # The oldest query is the one that sees furthest back.
        unseen = max(0, keys.shape[1] - T - (window - 1))
        keys, v = keys[:, unseen:], v[:, unseen:]
        missing = None if missing is None else (missing - unseen).clamp_min(0)
        if 2 * max(window, MIN_BLOCK) <= T:
            return _attend_in_window(q, keys, v, window, missing)
    return _attend_densely(q, keys, v, window, missing)


def _attend_densely(
    q: Float[Tensor, "B T H Dh"],
    keys: Float[Tensor, "B S G Dh"],
    v: Float[Tensor, "B S G Dh"],
    window: int | None,
    missing: Int[Tensor, " B"] | None,
) -> Float[Tensor, "B T H Dh"]:
    """Score all S tokens for each query; a mask hides what is not to be seen, where there is any."""
    T, S = q.shape[1], keys.shape[1]
    narrow = window is not None and window < S
    if missing is None and not narrow and T == 1:
        return _softmax_attention(q, keys, v, None)
    if missing is None and not narrow and T == S:
        return _softmax_attention(q, keys, v, None, causal=True)
    column = torch.arange(S, device=q.device)
    age = column[S - T :, None] - column
    visible = (age >= 0) & (age < window) if window is not None else age >= 0  # [T, S]
    if missing is not None:
        visible = (visible & (column >= missing[:, None, None]))[:, None]  # [B, 1, T, S]
    return _softmax_attention(q, keys, v, visible)


def _attend_in_window(
    q: Float[Tensor, "B T H Dh"],
    keys: Float[Tensor, "B S G Dh"],
    v: Float[Tensor, "B S G Dh"],
    window: int,
    missing: Int[Tensor, " B"] | None,
) -> Float[Tensor, "B T H Dh"]:
    """Score only blocks near the diagonal: cost and memory grow with T * window, not T * T.

    The first window - 1 queries may see places before the first query, which may be missing or
    not there; for all later ones every block looks alike.
    """
    T, S, first = q.shape[1], keys.shape[1], window - 1
    start = S - T + first
    parts = [_attend_densely(q[:, :first], keys[:, :start], v[:, :start], window, missing)] if first else []
    block = max(window, MIN_BLOCK)
    blocks = -(-(T - first) // block)
    q = F.pad(q[:, first:], (0, 0, 0, 0, 0, blocks * block - (T - first)))
    q = q.unflatten(1, (blocks, block)).flatten(0, 1)
    keys, v = (_overlapping(x[:, S - T :], blocks, block, block + first) for x in (keys, v))
    out = _attend_densely(q, keys, v, window, None).unflatten(0, (-1, blocks)).flatten(1, 2)
    return torch.cat((*parts, out[:, : T - first]), dim=1)


def _overlapping(
    x: Float[Tensor, "B T G Dh"], blocks: int, block: int, span: int
) -> Float[Tensor, "BN {span} G Dh"]:
    """Cut `blocks` pieces of `span` tokens, `block` apart, filling up with zeros behind the last token."""
    x = F.pad(x, (0, 0, 0, 0, 0, (blocks - 1) * block + span - x.shape[1]))
    return x.unfold(1, span, block).permute(0, 1, 4, 2, 3).flatten(0, 1)


def _softmax_attention(
    q: Float[Tensor, "B T H Dh"],
    keys: Float[Tensor, "B S G Dh"],
    v: Float[Tensor, "B S G Dh"],
    visible: Bool[Tensor, "*#B T S"] | None,
    causal: bool = False,
) -> Float[Tensor, "B T H Dh"]:
    B, T, H, Dh = q.shape
    G = keys.shape[2]
    keys, v = keys.transpose(1, 2), v.transpose(1, 2)
    if T == 1:
        # One query a head: the heads of a group are as good as G times H / G queries, without copied keys.
        out = F.scaled_dot_product_attention(q.reshape(B, G, H // G, Dh), keys, v, attn_mask=visible)
        return out.reshape(B, 1, H, Dh)
    if G != H and visible is not None:
        # Likewise, the heads of a group are as good as H / G times as many queries of one head.
        q = q.unflatten(2, (G, H // G)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        visible = visible.repeat(*[1] * (visible.dim() - 2), H // G, 1)
        out = F.scaled_dot_product_attention(q, keys, v, attn_mask=visible)
        return out.unflatten(2, (H // G, T)).permute(0, 3, 1, 2, 4).flatten(2, 3)
    if G != H:
        keys, v = keys.repeat_interleave(H // G, dim=1), v.repeat_interleave(H // G, dim=1)
    q = q.transpose(1, 2)
    return F.scaled_dot_product_attention(q, keys, v, attn_mask=visible, is_causal=causal).transpose(1, 2)
