"""Gathers and scatters that need no intermediate tensor of the size pairs x width."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def gathered_sum(
    w: Float[Tensor, "M k"], ids: Int[Tensor, "M k"], rows: Float[Tensor, "R D"]
) -> Float[Tensor, "M D"]:
    """Add up  sum_j w_j rows[ids_j]  for every token."""
    return F.embedding_bag(ids, rows, per_sample_weights=w, mode="sum")


def gathered_inner(
    x: Float[Tensor, "M D"], rows: Float[Tensor, "R D"], ids: Int[Tensor, "M k"]
) -> Float[Tensor, "M k"]:
    """Take the inner products  x . rows[ids_j]  of every token with its own rows."""
    M, k = ids.shape
    bag = torch.arange(M, device=ids.device)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x, rows, ids.flatten(), bag * k, bag.repeat_interleave(k), 0
    ).view(M, k)


def sparse_rows(
    rows: Int[Tensor, " U"], contents: Float[Tensor, "U D"], shape: torch.Size, *, distinct: bool = True
) -> Tensor:
    """Return a sparse tensor [S, D] that holds these rows; `distinct`: they are, and ascend, so it is coalesced."""
    # said for the whole block: PyTorch 2.11 warns even if the call itself says it
    with torch.sparse.check_sparse_tensor_invariants(False):
        return torch.sparse_coo_tensor(rows[None], contents, shape, is_coalesced=distinct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The pairs (token, j) of some tokens, sorted by the row they address: each row's pairs form one run."""

    row: Int[Tensor, " U"]
    """Distinct rows, ascending."""
    start: Int[Tensor, " U"]
    """Where each row's run begins."""
    token: Int[Tensor, " P"]
    """Token of each sorted pair."""
    order: Int[Tensor, " P"]
    """Place of each sorted pair among the flat pairs."""

    @classmethod
    def of(cls, ids: Int[Tensor, "M k"]) -> "Runs":
        """Sort the pairs of M tokens that address k rows each; a row's pairs keep the order of the tokens."""
        ordered, order = ids.flatten().sort(stable=True)
        row, count = torch.unique_consecutive(ordered, return_counts=True)
        token = torch.div(order, ids.shape[1], rounding_mode="floor")
        return cls(row=row, start=count.cumsum(0) - count, token=token, order=order)

    def sum(self, w: Float[Tensor, "M k"], x: Float[Tensor, "M D"]) -> Float[Tensor, "U D"]:
        """Add up  w_tj x_t  over each row's pairs, in the order of the tokens."""
        weights = w.flatten()[self.order]
        return F.embedding_bag(self.token, x, self.start, per_sample_weights=weights, mode="sum")

    def add_(self, table: Float[Tensor, "R D"], w: Float[Tensor, "M k"], x: Float[Tensor, "M D"]) -> None:
        """Add  w_tj x_t  to the pairs' rows of `table`, in place."""
        table.index_add_(0, self.row, self.sum(w, x))
