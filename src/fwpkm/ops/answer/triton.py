"""Single tokens and reads through an overlay as Triton kernels: one launch each, nothing that waits for the device."""

import triton
from torch import Tensor

from fwpkm.ops.answer.kernels_triton import answer_kernel, read_cells_kernel
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.launch_triton import accumulator, column_block, on_device, pair_block

WEIGHTS = {"softmax": 0, "silu": 1, "relu": 2}
_TILE = 16384
"""Numbers of sub-keys that a program multiplies together."""
_CELLS = 4096
"""Numbers of rows that it adds up together."""


def answer(
    q: Tensor,
    keys: Tensor,
    squares: Tensor,
    base: Tensor | None,
    index: Tensor,
    rows: Tensor,
    temperature: Tensor,
    options: CoreOptions,
    out: Tensor,
) -> None:
    """Write what the tokens q [B, T, H, Dk] retrieve to `out` [B, T, Dv]; see `answer_tokens`."""
    B, T, H, _ = q.shape
    n, d = keys.shape[-2:]
    if not out.numel():
        return
    q, keys, squares, index, rows = (x.contiguous() for x in (q, keys, squares, index, rows))
    strides = [x.stride(0) if x.shape[0] > 1 else 0 for x in (keys, squares, index)]
    has_base, base = base is not None, rows if base is None else base.contiguous()
    sizes = (T, n, d, out.shape[-1], index.shape[1], *strides)
    with on_device(q):
        answer_kernel[(B * T,)](
            q, keys, squares, base, index, rows, temperature, out, *sizes, HAS_BASE=has_base,
            IDW=options.score == "idw", KIND=WEIGHTS[options.weights], ACC=accumulator(out), H=H, K=options.topk,
            num_warps=8, **answer_blocks(n, d, out.shape[-1], H, options.topk),
        )  # fmt: skip


def answer_blocks(n: int, d: int, D: int, H: int, topk: int) -> dict[str, int]:
    """Return the block sizes of `answer_kernel`: all scores of one half of a head are in registers."""
    HP, KP, BN = triton.next_power_of_2(H), triton.next_power_of_2(topk), triton.next_power_of_2(n)
    BN = max(BN, KP)
    BK = max(1, min(triton.next_power_of_2(d), _TILE // BN))
    BD = max(1, min(triton.next_power_of_2(D), _CELLS // (HP * KP)))
    return {"HP": HP, "KP": KP, "BN": BN, "BK": BK, "BD": BD}


def read_cells(
    w: Tensor, cells: Tensor, base: Tensor | None, index: Tensor, rows: Tensor, out: Tensor
) -> None:
    """Write  sum_j w_tj V[cell_tj]  to `out` [M, Dv]."""
    M, J = cells.shape
    width = out.shape[1]
    if not out.numel():
        return
    BD = column_block(width)
    w, cells, index, rows = (x.contiguous() for x in (w, cells, index, rows))
    given = (
        w,
        cells,
        rows if base is None else base.contiguous(),
        index,
        rows,
        out,
        J,
        width,
        index.shape[1],
    )
    how = {"ACC": accumulator(out), "BJ": pair_block(J, BD), "BD": BD, "HAS_BASE": base is not None}
    with on_device(out):
        read_cells_kernel[(M, triton.cdiv(width, BD))](*given, **how)
