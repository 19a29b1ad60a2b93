"""The memory scan as the definition says it; autograd differentiates it, any float dtype."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def memory_scan_naive(
    table: Float[Tensor, "R Dv"],
    rows: Int[Tensor, "Tr J"],
    w: Float[Tensor, "Tr J"],
    write_w: Float[Tensor, "Tw J"],
    target: Float[Tensor, "Tw Dv"],
    reads: Sequence[int],
    writes: Sequence[int],
) -> tuple[Float[Tensor, "Tr Dv"], Float[Tensor, "R Dv"]]:
    """Do what `memory_scan` does, one dense table after the other."""
    out = []
    for chunk, (row, weight, write, aim) in enumerate(
        zip(
            rows.split(list(reads)),
            w.split(list(reads)),
            write_w.split(list(writes)),
            target.split(list(writes)),
            strict=True,
        )
    ):
        v_hat = torch.einsum("tj,tjd->td", weight, table[row])
        out.append(v_hat)
        written = writes[chunk]
        error = v_hat[:written] - aim
        step = write[..., None] * error[:, None, :]  # [written, J, Dv]
        table = table.index_add(0, row[:written].flatten(), -step.flatten(0, 1))
    return torch.cat(out), table
