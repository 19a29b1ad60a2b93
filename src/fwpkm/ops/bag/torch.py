"""The weighted bag in plain PyTorch: neither direction makes a tensor of the size tokens x rows x width."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.sparse import Runs, gathered_inner, gathered_sum, sparse_rows


def weighted_bag(
    w: Float[Tensor, "M J"],
    ids: Int[Tensor, "M J"],
    table: Float[Tensor, "N D"],
    *,
    sparse_grad: bool = False,
) -> Float[Tensor, "M D"]:
    """Add up  sum_j w_j table[ids_j]  for every token; differentiable once, in `w` and `table`.

    Args:
        w: Weights, in the dtype of `table`.
        ids: Rows of the table, 0 <= ids < N.
        table: A trained table.
        sparse_grad: Whether the table's gradient is a sparse tensor that holds the rows in `ids` alone, each
            once (torch.optim.SparseAdam and SGD take it), or a dense one.

    Raises:
        ValueError: If `w` and `ids` are not alike, or `w` and `table` differ in dtype.
    """
    if w.shape != ids.shape or w.dtype != table.dtype:
        raise ValueError(
            "weighted_bag: w must have the shape of ids and the dtype of table, got w "
            f"{tuple(w.shape)} of {w.dtype}, ids {tuple(ids.shape)} and table of {table.dtype}"
        )
    return _weighted_bag(w, ids, table, sparse_grad)


@torch.library.custom_op("fwpkm::weighted_bag", mutates_args=())
def _weighted_bag(w: Tensor, ids: Tensor, table: Tensor, sparse_grad: bool) -> Tensor:
    return gathered_sum(w, ids, table)


@_weighted_bag.register_fake
def _(w: Tensor, ids: Tensor, table: Tensor, sparse_grad: bool) -> Tensor:
    return table.new_empty(w.shape[0], table.shape[1])


@torch.library.custom_op("fwpkm::weighted_bag_dw", mutates_args=())
def _weight_gradient(d_out: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    return gathered_inner(d_out.contiguous(), table, ids)


@_weight_gradient.register_fake
def _(d_out: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    return d_out.new_empty(ids.shape)


@torch.library.custom_op("fwpkm::weighted_bag_dtable", mutates_args=())
def _table_gradient(w: Tensor, ids: Tensor, d_out: Tensor, table: Tensor) -> Tensor:
    row, contents = _row_gradients(w, ids, d_out)
    return torch.zeros_like(table).index_copy_(0, row, contents)


@_table_gradient.register_fake
def _(w: Tensor, ids: Tensor, d_out: Tensor, table: Tensor) -> Tensor:
    return torch.empty_like(table)


def _row_gradients(w: Tensor, ids: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows [U] in `ids`, ascending, and  sum w_tj d_out_t  of each [U, D]."""
    runs = Runs.of(ids)
    return runs.row, runs.sum(w, d_out.contiguous())


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    w, ids, table, ctx.sparse_grad = inputs
    ctx.save_for_backward(w, ids, table)


def _backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    w, ids, table = ctx.saved_tensors
    wants_w, _, wants_table, _ = ctx.needs_input_grad
    dw = _weight_gradient(d_out, table, ids) if wants_w else None
    d_table = None
    if wants_table and ctx.sparse_grad:
        row, contents = _row_gradients(w, ids, d_out)
        d_table = sparse_rows(row, contents, table.shape)
    elif wants_table:
        d_table = _table_gradient(w, ids, d_out, table)
    return dw, None, d_table, None


_weighted_bag.register_autograd(_backward, setup_context=_setup_context)
