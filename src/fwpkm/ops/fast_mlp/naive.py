"""The fast-weight MLP's recurrence as the definition says it: every gradient by autograd, any float dtype.

One network serves all streams of the call; a network per stream is one call per stream.
"""

from dataclasses import fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fwpkm.ops.fast_mlp.options import FastMLPOptions
from fwpkm.ops.fast_mlp.torch import FastMLP


def answer_naive(weights: FastMLP, x: Float[Tensor, "*B Din"]) -> Float[Tensor, "*B Dout"]:
    """Return f(x) = D (silu(G x + g) * (U x + u)) + d  of one network."""
    gate = F.silu(F.linear(x, weights.gate, weights.gate_bias))
    return F.linear(gate * F.linear(x, weights.up, weights.up_bias), weights.down, weights.down_bias)


def target_naive(v: Float[Tensor, "B T Dv"], t: int, options: FastMLPOptions) -> Float[Tensor, "B Dv"]:
    """Return what token t learns."""
    if options.target == "last":
        return v[:, t + options.lookahead]
    return v[:, t : t + options.lookahead + 1].mean(1)


def fast_mlp_naive(
    q: Float[Tensor, "B T Dk"],
    v: Float[Tensor, "B T Dv"],
    weights: FastMLP,
    options: FastMLPOptions,
    *,
    mask: Float[Tensor, "B T"] | None = None,
    flush: bool = False,
) -> tuple[Float[Tensor, "B T Dv"], FastMLP]:
    """Read and write one shared network over a whole sequence.

    Args:
        q: Queries.
        v: Values before lookahead.
        weights: The network before the first token.
        options: The arithmetic.
        mask: 0 for tokens without loss, else 1; None is 1.
        flush: Write the last, incomplete chunk too. "dropped" borders always do.

    Returns:
        What the tokens read, and the network after the last write.
    """
    T, C, ahead = q.shape[1], options.chunk_size, options.lookahead
    mask = torch.ones_like(v[..., 0]) if mask is None else mask
    moved = options.border == "moved"
    out, written = [], 0
    for t in range(T):
        # A border lies where C more targets are known, and is crossed before the next token reads.
        if t - written == C + (ahead if moved else 0):
            end = written + C if moved else t - ahead
            weights = _write(q, v, mask, range(written, end), weights, options)
            written += C
        out.append(answer_naive(weights, q[:, t]))
    end = min(T - ahead, written + C)
    if end > written and (flush or not moved or end == written + C):
        weights = _write(q, v, mask, range(written, end), weights, options)
    return torch.stack(out, dim=1), weights


def _write(
    q: Tensor, v: Tensor, mask: Tensor, tokens: range, weights: FastMLP, options: FastMLPOptions
) -> FastMLP:
    """Take one step on the mean squared error of some tokens, every gradient by autograd."""
    if not tokens:
        return weights
    names = [f.name for f in fields(weights) if getattr(weights, f.name) is not None]
    with torch.enable_grad():
        own = [getattr(weights, name) for name in names]
        own = [p if p.requires_grad else p.detach().requires_grad_() for p in own]
        now = FastMLP(**dict(zip(names, own, strict=True)))
        losses = [
            mask[:, t, None] * (answer_naive(now, q[:, t]) - target_naive(v, t, options)).square()
            for t in tokens
        ]
        grads = torch.autograd.grad(torch.stack(losses).mean(), own, create_graph=True)
        stepped = [_descend(p, grad, options) for p, grad in zip(own, grads, strict=True)]
    return FastMLP(**dict(zip(names, stepped, strict=True)))


def _descend(p: Tensor, grad: Tensor, options: FastMLPOptions) -> Tensor:
    if options.clip_gradients:
        grad = grad.clamp(-1.0, 1.0)
    return p - options.lr * (grad + options.weight_decay * p)
