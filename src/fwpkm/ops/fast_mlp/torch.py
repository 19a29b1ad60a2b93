"""Fast-weight SwiGLU networks: what they answer, and their gradients in closed form.

All of it is ordinary differentiable arithmetic, so a backward pass goes through any number of writes.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FastMLP:
    """Weights of small networks  f(x) = D (silu(G x + g) * (U x + u)) + d , one for each place in S."""

    gate: Float[Tensor, "*S F Din"]
    """G."""
    up: Float[Tensor, "*S F Din"]
    """U."""
    down: Float[Tensor, "*S Dout F"]
    """D."""
    gate_bias: Float[Tensor, "*S F"] | None = None
    """g; None is none, and so for the others."""
    up_bias: Float[Tensor, "*S F"] | None = None
    """u."""
    down_bias: Float[Tensor, "*S Dout"] | None = None
    """d."""

    def map(self, fn: Callable[..., Tensor], *others: "FastMLP") -> "FastMLP":
        """Apply `fn` to every weight, together with the same weight of `others`."""
        return FastMLP(
            **{
                f.name: fn(own, *(getattr(other, f.name) for other in others))
                for f in fields(self)
                if (own := getattr(self, f.name)) is not None
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """What a network computes on the way to its answer."""

    before: Float[Tensor, "*S M F"]
    """G x + g, before the nonlinearity."""
    gate: Float[Tensor, "*S M F"]
    """silu of it."""
    up: Float[Tensor, "*S M F"]
    """U x + u."""

    @property
    def hidden(self) -> Float[Tensor, "*S M F"]:
        """What `down` sees."""
        return self.gate * self.up


def activate(weights: FastMLP, x: Float[Tensor, "*S M Din"]) -> Activations:
    """Compute everything up to the hidden layer."""
    before = _linear(x, weights.gate, weights.gate_bias)
    return Activations(before=before, gate=F.silu(before), up=_linear(x, weights.up, weights.up_bias))


def answer(weights: FastMLP, x: Float[Tensor, "*S M Din"]) -> Float[Tensor, "*S M Dout"]:
    """Return f(x) for M tokens of each network."""
    return _linear(activate(weights, x).hidden, weights.down, weights.down_bias)


def gradients(
    weights: FastMLP,
    x: Float[Tensor, "*S M Din"],
    found: Activations,
    d_out: Float[Tensor, "*S M Dout"],
    rates: tuple[Float[Tensor, "*S M 1"], Float[Tensor, "*S M 1"], Float[Tensor, "*S M 1"]] | None = None,
) -> FastMLP:
    """Add up the tokens' gradients of all weights, given those of the answers.

    Args:
        weights: The networks.
        x: Their inputs.
        found: `activate(weights, x)`.
        d_out: Gradients of the answers; not scaled by `rates`.
        rates: Factors of each token's gradient of gate, up and down; None is one.
    """
    sigma = found.before.sigmoid()
    d_hidden = d_out @ weights.down
    d_up = d_hidden * found.gate
    d_before = d_hidden * found.up * (sigma * (1 + found.before * (1 - sigma)))
    if rates is not None:
        d_before, d_up, d_out = d_before * rates[0], d_up * rates[1], d_out * rates[2]
    return FastMLP(
        gate=d_before.mT @ x,
        up=d_up.mT @ x,
        down=d_out.mT @ found.hidden,
        gate_bias=None if weights.gate_bias is None else d_before.sum(-2),
        up_bias=None if weights.up_bias is None else d_up.sum(-2),
        down_bias=None if weights.down_bias is None else d_out.sum(-2),
    )


def regression_step(
    weights: FastMLP,
    x: Float[Tensor, "*S M Din"],
    target: Float[Tensor, "*S M Dout"],
    mask: Float[Tensor, "*S M"],
    *,
    lr: float,
    weight_decay: float = 0.0,
    clip_gradients: bool = False,
) -> FastMLP:
    """Take one step against  mean_{t, d} mask_t (f(x_t) - target_t)_d^2 , the mean over all M tokens.

    This is the write of the paper's baseline (authors' release of arXiv:2601.00671v2, fwmlp): no factor
    1/2, no gate, and tokens without loss still count in the mean.

    Args:
        weights: The networks before the step.
        x: Inputs of M >= 1 tokens.
        target: What the networks should have answered.
        mask: 0 where a token has no loss, else 1.
        lr: Step size.
        weight_decay: Times the weights, added to the gradients.
        clip_gradients: Clamp each number of the gradients to [-1, 1] first.

    Returns:
        The networks after it, sharing no memory with the inputs.
    """
    found = activate(weights, x)
    error = _linear(found.hidden, weights.down, weights.down_bias) - target
    d_out = error * (mask * (2 / (target.shape[-1] * target.shape[-2])))[..., None]
    step = gradients(weights, x, found, d_out)

    def descend(p: Tensor, grad: Tensor) -> Tensor:
        grad = grad.clamp(-1.0, 1.0) if clip_gradients else grad
        return (p * (1 - lr * weight_decay) if weight_decay else p) - lr * grad

    return weights.map(descend, step)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = torch.matmul(x, weight.mT)
    return y if bias is None else y + bias[..., None, :]
