"""The gated delta rule as the definition says it: one token after the other, in any float dtype."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gated_delta_rule_naive(
    q: Float[Tensor, "B T H Dk"],
    keys: Float[Tensor, "B T H Dk"],
    v: Float[Tensor, "B T H Dv"],
    g: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H Dk Dv"],
    mask: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T H Dv"], Float[Tensor, "B H Dk Dv"]]:
    r"""Run  S_t = exp(g_t) S_{t-1} + k_t beta_t (v_t - k_t^T exp(g_t) S_{t-1}),  o_t = q_t^T S_t .

    Gated Delta Networks (arXiv:2412.06464v3, Eq. 10), S transposed. Queries and keys are divided by
    sqrt(|x|^2 + 1e-6), queries also by sqrt(Dk).

    Args:
        q: Queries.
        keys: Where to write.
        v: What to write there.
        g: Log decay, at most 0.
        beta: Share of the old content that is replaced, 0 to 1.
        state: S before the first token.
        mask: False where a token is padding: such a token leaves S alone.

    Returns:
        Outputs and S after the last token, both new tensors (S itself if there are no tokens).
    """
    q = q / torch.sqrt(q.square().sum(-1, keepdim=True) + 1e-6) / q.shape[-1] ** 0.5
    keys = keys / torch.sqrt(keys.square().sum(-1, keepdim=True) + 1e-6)
    outputs = []
    for t in range(q.shape[1]):
        decayed = torch.exp(g[:, t])[..., None, None] * state
        error = v[:, t] - torch.einsum("bhk,bhkv->bhv", keys[:, t], decayed)
        written = decayed + torch.einsum("bhk,bh,bhv->bhkv", keys[:, t], beta[:, t], error)
        state = torch.where(mask[:, t, None, None, None], written, state)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v), state
