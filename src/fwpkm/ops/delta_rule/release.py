"""The gated delta rule in the authors' release's order of operations, so that even rounding agrees.

Gradients of strong decays cancel almost to nothing, so that in float32 some 0.1% to 5% of them is rounding noise. The
noise, too, is a function of the inputs as long as every sum is taken in the same order: given the same bits, the
release's form and this one return the same bits. Results are no better than those of `gated_delta_rule_torch`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fwpkm.ops.compiling import uncompiled

CHUNK = 64
"""Tokens of a chunk. Shorter sequences are filled up to it, as sums over fewer numbers round differently."""


@uncompiled  # which would round otherwise
def gated_delta_rule_release(
    q: Float[Tensor, "B T H Dk"],
    keys: Float[Tensor, "B T H Dk"],
    v: Float[Tensor, "B T H Dv"],
    g: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H Dk Dv"],
) -> tuple[Float[Tensor, "B T H Dv"], Float[Tensor, "B H Dk Dv"]]:
    """Run `gated_delta_rule_naive` in chunks of 64; arguments and results as in `gated_delta_rule_torch`."""
    T = q.shape[1]
    q, keys, v, g, beta = (_heads_first(x) for x in (_unit(q), _unit(keys), v, g, beta))
    q = q * (1 / q.shape[-1] ** 0.5)
    wide = beta[..., None]
    q, keys, values, scaled = (x.unflatten(2, (-1, CHUNK)) for x in (q, keys, v * wide, keys * wide))
    b = g.unflatten(2, (-1, CHUNK)).cumsum(-1)
    between = _between(b)
    solve = _UnitInverse.apply(-(scaled @ keys.mT * between).tril(-1))
    fresh = solve @ values
    reads = solve @ (scaled * b.exp()[..., None])
    out = []
    for n in range(q.shape[2]):
        part, state = _chunk(
            q[:, :, n], keys[:, :, n], fresh[:, :, n], reads[:, :, n], b[:, :, n], between[:, :, n], state
        )
        out.append(part)
    return torch.cat(out, dim=2)[:, :, :T].transpose(1, 2).contiguous(), state


def _unit(x: Float[Tensor, "B T H D"]) -> Float[Tensor, "B T H D"]:
    # Not x.square(): its gradient is added up in another order.
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def _heads_first(x: Float[Tensor, "B T H *D"]) -> Float[Tensor, "B H S *D"]:
    """Fill time up to whole chunks with zeros, which write nothing."""
    x = x.transpose(1, 2).contiguous()
    return F.pad(x, (0, 0) * (x.ndim - 3) + (0, -x.shape[2] % CHUNK))


def _between(b: Float[Tensor, "B H N C"]) -> Float[Tensor, "B H N C C"]:
    """Return exp(b_t - b_s), what is left at t of what s wrote; 0 for s > t."""
    # Cut off before the exponential as well, which would overflow above the diagonal.
    return (b[..., :, None] - b[..., None, :]).tril().exp().tril()


def _chunk(
    q: Float[Tensor, "B H C Dk"],
    keys: Float[Tensor, "B H C Dk"],
    fresh: Float[Tensor, "B H C Dv"],
    reads: Float[Tensor, "B H C Dk"],
    b: Float[Tensor, "B H C"],
    between: Float[Tensor, "B H C C"],
    state: Float[Tensor, "B H Dk Dv"],
) -> tuple[Float[Tensor, "B H C Dv"], Float[Tensor, "B H Dk Dv"]]:
    """Read a chunk and write it. The order of lines decides in which order autograd adds up gradients."""
    inside = q @ keys.mT * between
    u = fresh - reads @ state
    out = (q * b[..., None].exp()) @ state + inside @ u
    end = b[..., -1, None]
    kept = state * end[..., None].exp()
    return out, kept + (keys * (end - b).exp()[..., None]).mT @ u


class _UnitInverse(torch.autograd.Function):
    r"""Invert I - L row by row:  X_i = e_i + L_i X  for strictly lower triangular L.

    Autograd through the rows would keep C of the matrices; this keeps two, and adds up in the same order.
    """

    @staticmethod
    def forward(ctx: Any, lower: Float[Tensor, "*batch C C"]) -> Float[Tensor, "*batch C C"]:
        rest = lower.clone()
        for i in range(1, CHUNK):
            row = lower[..., i, :i]
            rest[..., i, :i] = row + (row[..., None] * rest[..., :i, :i]).sum(-2)
        ctx.save_for_backward(lower, rest)
        return rest + torch.eye(CHUNK, dtype=rest.dtype, device=rest.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "*batch C C"]) -> Float[Tensor, "*batch C C"]:
        lower, rest = ctx.saved_tensors
        grad, total = grad.clone(), torch.zeros_like(grad)
        for i in range(CHUNK - 1, 0, -1):
            of_row, known = grad[..., i, :i], rest[..., :i, :i]
            total[..., i, :i] = of_row + (of_row[..., None, :] * known).sum(-1)
            grad[..., :i, :i] += of_row[..., None, :] * lower[..., i, :i, None]
        return total
