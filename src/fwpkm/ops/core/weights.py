"""From slot scores to read weights."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fwpkm.ops.core.options import WeightKind


def read_weights(
    score: Float[Tensor, "*B J"], kind: WeightKind, temperature: Float[Tensor, ""] | float = 1.0
) -> Float[Tensor, "*B J"]:
    """Turn a token's J = H*k kept scores, of all its heads together, into weights.

    "softmax" sums to 1; "silu" and "relu" do not  (authors' release, score_nonlinear).
    """
    score = score / temperature
    if kind == "softmax":
        return score.softmax(dim=-1)
    return F.silu(score) if kind == "silu" else F.relu(score)
