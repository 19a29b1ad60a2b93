"""LaCT's write in plain PyTorch: gradients in closed form, differentiable through any number of writes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.ops.fast_mlp import FastMLP, activate, gradients
from fwpkm.ops.lact.options import LaCTOptions

NORM_EPS = 1e-5
"""Added to a row's length before dividing by it (authors' release)."""

NEWTON_SCHULZ = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Coefficients (a, b, c) of the five iterations  X <- a X + b (X X') X + c (X X')^2 X  (authors' release)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaCTWeights:
    """Fast networks of S streams and H heads, without biases, and what their next update needs."""

    mlp: FastMLP
    """The networks  f(x) = D (silu(G x) * (U x)) , weights [S, H, ...]."""
    lengths: tuple[
        Float[Tensor, "S H F 1"],
        Float[Tensor, "S H F 1"],
        Float[Tensor, "S H d 1"],
    ]
    """Length of each row of gate, up and down, kept whatever is written."""
    last: FastMLP | None
    """The last chunk's update; None without momentum."""

    @classmethod
    def fresh(cls, mlp: FastMLP, *, momentum: bool) -> "LaCTWeights":
        """Start from `mlp`, keeping the lengths of its rows."""
        lengths = (_row_lengths(mlp.gate), _row_lengths(mlp.up), _row_lengths(mlp.down))
        return cls(mlp=mlp, lengths=lengths, last=mlp.map(torch.zeros_like) if momentum else None)


def lact_step(
    weights: LaCTWeights,
    k: Float[Tensor, "S H M d"],
    v: Float[Tensor, "S H M d"],
    rates: tuple[Float[Tensor, "S H M 1"], Float[Tensor, "S H M 1"], Float[Tensor, "S H M 1"]],
    momentum: Float[Tensor, "S H 1 1"] | None,
    options: LaCTOptions,
) -> LaCTWeights:
    """Take one step against  - sum_t rate_t f(k_t) . v_t , then give each row its old length back.

    W <- normalise(W + update),  update = gradient step (+ momentum * last update), orthogonalised for "muon"
    (LaCT, arXiv:2505.23884v1, Sec. 3; the post-norm form of the authors' release).

    Args:
        weights: The networks before the step.
        k: Keys of a chunk's M tokens.
        v: Values of the same tokens.
        rates: Each token's step sizes of gate, up and down.
        momentum: Factor of the last update; there exactly if `options.momentum` says so.
        options: The arithmetic.
    """
    mlp = weights.mlp
    update = gradients(mlp, k, activate(mlp, k), v, rates)
    last = None
    if weights.last is not None:
        assert momentum is not None, "momentum has its factor"
        update = last = update.map(lambda new, old: new + momentum * old, weights.last)
    if options.update == "muon":
        update = update.map(orthogonalise)
    gate, up, down = weights.lengths
    moved = mlp.map(torch.add, update)
    kept = FastMLP(
        gate=_with_lengths(moved.gate, gate),
        up=_with_lengths(moved.up, up),
        down=_with_lengths(moved.down, down),
    )
    return LaCTWeights(mlp=kept, lengths=weights.lengths, last=last)


def orthogonalise(G: Float[Tensor, "*S n m"]) -> Float[Tensor, "*S n m"]:
    """Bring all singular values of G near 1, keeping its singular vectors: Muon's Newton-Schulz iteration.

    Singular values of a hundredth of the Frobenius norm and more end within 0.97 and 1.04. The release
    iterates in bfloat16, which is 12 to 16% off; this in the precision of G.
    """
    wide = G.shape[-2] <= G.shape[-1]
    X = G if wide else G.mT
    X = X / (X.square().sum((-2, -1), keepdim=True).clamp_min(torch.finfo(X.dtype).tiny).sqrt() + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        A = X @ X.mT
        X = a * X + (b * A + c * (A @ A)) @ X
    return X if wide else X.mT


def _row_lengths(w: Tensor) -> Tensor:
    return w.norm(dim=-1, keepdim=True)


def _with_lengths(w: Tensor, lengths: Tensor) -> Tensor:
    return w / (_row_lengths(w) + NORM_EPS) * lengths
