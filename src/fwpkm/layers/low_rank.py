"""Learned matrices, one a head, in full or as half the identity plus a product of low rank."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fwpkm.layers.norm import at_least_float32


class HeadMatrices(nn.Module):
    """One learned matrix a head, in full or as half the identity plus a product of low rank.

    Args:
        heads: H.
        rows: Rows of each matrix.
        columns: Columns of each matrix.
        rank: Rank of the product; None learns the matrices in full.
        gain: Scale of the product when drawn.
    """

    def __init__(self, heads: int, rows: int, columns: int, *, rank: int | None, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.full = nn.Parameter(torch.empty(heads, rows, columns)) if rank is None else None
        self.left = None if rank is None else nn.Parameter(torch.empty(heads, rows, rank))
        self.right = None if rank is None else nn.Parameter(torch.empty(heads, rank, columns))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the full matrices with deviation 1/sqrt(columns), the product's with `gain` times that."""
        if self.full is not None:
            nn.init.normal_(self.full, std=self.full.shape[-1] ** -0.5)
        elif self.left is not None and self.right is not None:
            nn.init.normal_(self.left, std=self.gain * self.left.shape[-1] ** -0.5)
            nn.init.normal_(self.right, std=self.gain * self.right.shape[-1] ** -0.5)

    def forward(self) -> Float[Tensor, "H rows columns"]:
        """Return the matrices, in float32 or wider, under autocast too."""
        if self.full is not None:
            return at_least_float32(self.full)
        assert self.left is not None, "there is a product where nothing is full"
        assert self.right is not None, "likewise"
        left, right = at_least_float32(self.left), at_least_float32(self.right)
        with torch.autocast(left.device.type, enabled=False):
            product = left @ right
        return product + 0.5 * torch.eye(left.shape[-2], right.shape[-1]).to(left)
