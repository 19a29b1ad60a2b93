"""Single tokens and reads through an overlay as Triton kernels; nothing waits for the device."""

from typing import Any

import triton
from torch import Tensor

from fwpkm.ops.answer.kernels_triton import answer_kernel, put_token_kernel, rate_kernel, read_cells_kernel
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.launch_triton import accumulator, column_block, on_device, pair_block

WEIGHTS = {"softmax": 0, "silu": 1, "relu": 2}
_RATED = 4096
"""Numbers of sub-keys that a program multiplies together."""
_QUERY = 1024
"""Numbers of a half of a query that it squares together."""
_CELLS = 4096
"""Numbers of rows that it adds up together."""
_SCORES = 1024
"""Of each half of a head, that four warps hold."""
_WIDEST_COPY = 1024
"""Numbers that a program moves at once."""


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
    keys_stride, squares_stride, index_stride = (
        x.stride(0) if x.shape[0] > 1 else 0 for x in (keys, squares, index)
    )
    has_base, base = base is not None, rows if base is None else base.contiguous()
    near = out.new_empty(B * T, H, 2, n)
    arithmetic: dict[str, Any] = {"IDW": options.score == "idw", "ACC": accumulator(out), "H": H}
    rating = rate_blocks(n, d)
    with on_device(q):
        rate_kernel[(triton.cdiv(n, rating["BN"]) * 2 * H * B * T,)](
            q, keys, squares, near, T, n, d, keys_stride, squares_stride, **arithmetic, **rating
        )
        answer_kernel[(B * T,)](
            q, near, base, index, rows, temperature, out, T, n, d, out.shape[-1], index_stride,
            HAS_BASE=has_base, KIND=WEIGHTS[options.weights], K=options.topk, **arithmetic,
            **answer_blocks(n, d, out.shape[-1], H, options.topk),
        )  # fmt: skip


def rate_blocks(n: int, d: int) -> dict[str, int]:
    """Return how many sub-keys one program of `rate_kernel` takes: few, for a token has the whole device to itself."""
    BK = min(_RATED, triton.next_power_of_2(d))
    return {"BN": max(1, min(_RATED // BK, triton.next_power_of_2(n))), "BK": BK, "num_warps": 4}


def answer_blocks(n: int, d: int, D: int, H: int, topk: int) -> dict[str, int]:
    """Return the block sizes of `answer_kernel`: all scores of a head are in registers."""
    HP, KP, BN = triton.next_power_of_2(H), triton.next_power_of_2(topk), triton.next_power_of_2(n)
    BN = max(BN, KP)
    BD = max(1, min(triton.next_power_of_2(D), _CELLS // (HP * KP)))
    BK, warps = min(triton.next_power_of_2(d), _QUERY), 4 if BN <= _SCORES else 8
    return {"HP": HP, "KP": KP, "BN": BN, "BK": BK, "BD": BD, "num_warps": warps}


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


def put_token(
    q: Tensor, v: Tensor, gate: Tensor | None, mask: Tensor | None, line: Tensor, place: Tensor
) -> None:
    """Write one token of each stream to line [B, capacity, W] at its place [B], and move that on."""
    if not place.numel():
        return
    B, capacity, _ = line.shape
    DQ, DV = q.numel() // B, v.numel() // B
    BW = min(_WIDEST_COPY, triton.next_power_of_2(max(DQ, DV)))
    given = [(v if x is None else x).contiguous() for x in (q, v, gate, mask)]
    with on_device(line):
        put_token_kernel[(B,)](
            *given, line, place, capacity, DQ, DV, HAS_GATE=gate is not None, HAS_MASK=mask is not None, BW=BW
        )
