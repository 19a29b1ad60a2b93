"""LaCT's recurrence as the definition says it, for one head of one stream: every gradient by autograd."""

import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.ops.fast_mlp import FastMLP
from fwpkm.ops.fast_mlp.naive import answer_naive
from fwpkm.ops.lact.options import LaCTOptions
from fwpkm.ops.lact.torch import NEWTON_SCHULZ, NORM_EPS

_NAMES = ("gate", "up", "down")


def lact_naive(
    q: Float[Tensor, "T d"],
    k: Float[Tensor, "T d"],
    v: Float[Tensor, "T d"],
    rates: Float[Tensor, "T 3"],
    momentum: Float[Tensor, " T"] | None,
    weights: FastMLP,
    options: LaCTOptions,
) -> tuple[Float[Tensor, "T d"], FastMLP]:
    """Read every token with the network as its chunk found it, and write every full chunk.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        rates: Each token's step sizes of gate, up and down.
        momentum: Each token's say in the factor of the last update; None is no momentum.
        weights: The network before the first token.
        options: The arithmetic.

    Returns:
        What the tokens read, and the network after the last full chunk.
    """
    first = {name: getattr(weights, name) for name in _NAMES}
    last = {name: torch.zeros_like(w) for name, w in first.items()}
    now, out, C = dict(first), [], options.chunk_size
    for start in range(0, q.shape[0], C):
        chunk = slice(start, start + C)
        out.append(answer_naive(FastMLP(**now), q[chunk]))
        if start + C > q.shape[0]:
            break
        step = {name: _step(name, now, k[chunk], v[chunk], rates[chunk]) for name in _NAMES}
        if momentum is not None:
            step = last = {name: step[name] + momentum[chunk].mean() * last[name] for name in _NAMES}
        if options.update == "muon":
            step = {name: _newton_schulz(g) for name, g in step.items()}
        now = {name: _lengths_of(first[name], now[name] + step[name]) for name in _NAMES}
    return torch.cat(out), FastMLP(**now)


def _step(name: str, weights: dict[str, Tensor], k: Tensor, v: Tensor, rates: Tensor) -> Tensor:
    """Differentiate  sum_t rate_t f(k_t) . v_t  by one of the weights, with that weight's own rates."""
    with torch.enable_grad():
        own = {n: w if w.requires_grad else w.detach().requires_grad_() for n, w in weights.items()}
        similarity = (answer_naive(FastMLP(**own), k) * v).sum(-1)
        gain = (rates[:, _NAMES.index(name)] * similarity).sum()
        return torch.autograd.grad(gain, own[name], create_graph=True)[0]


def _newton_schulz(G: Tensor) -> Tensor:
    X = G / (G.norm() + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        X = a * X + b * X @ X.T @ X + c * X @ X.T @ X @ X.T @ X
    return X


def _lengths_of(like: Tensor, w: Tensor) -> Tensor:
    return torch.stack([row / (row.norm() + NORM_EPS) * old.norm() for row, old in zip(w, like, strict=True)])
