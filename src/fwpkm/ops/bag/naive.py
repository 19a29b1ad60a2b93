"""The weighted bag as the definition says it; autograd differentiates it, any float dtype."""

from jaxtyping import Float, Int
from torch import Tensor


def weighted_bag_naive(
    w: Float[Tensor, "M J"], ids: Int[Tensor, "M J"], table: Float[Tensor, "N D"]
) -> Float[Tensor, "M D"]:
    """Add up  sum_j w_j table[ids_j]  for every token."""
    return (w[..., None] * table[ids]).sum(1)
