"""Weights of which every process keeps a share: FSDP2's, and tables by rows.

Torch's modules for it are imported where they are needed: that takes seconds, and most runs have none.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from fwpkm.models.decoder import Decoder
from fwpkm.train.row_shards import share_of
from fwpkm.train.tables import trained_tables


def shard(model: Decoder, world: int, device: torch.device) -> None:
    """Let every process keep a share of each block only. Gradients are added up, not averaged.

    Tables, sub-keys and scalars stay as they are: rows are looked up one by one (`row_shards`), and FSDP2 takes no
    scalars.

    Raises:
        ValueError: Without torchrun.
    """
    if not torch.distributed.is_initialized():
        raise ValueError(
            "train.parallel='shard' needs several processes: start with torchrun, or set train.parallel='replicate'"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world,))
    kept = {p for p in model.parameters() if p.ndim == 0} | trained_tables(model)[0]
    for part in (*model.blocks, model):
        sharded: Any = fully_shard(part, mesh=mesh, ignored_params=kept)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has no other


def settle(model: Decoder) -> None:
    """Give up the whole weights that a forward pass without a backward one leaves behind."""
    if (fsdp := sys.modules.get("torch.distributed.fsdp")) and isinstance(model, fsdp.FSDPModule):
        model.reshard()


def is_sharded(x: Tensor) -> bool:
    """Whether a tensor is FSDP2's share of a larger one."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def is_shared_out(x: Tensor) -> bool:
    """Whether a parameter is but this process's share of a larger one, FSDP2's or a table's."""
    return is_sharded(x) or share_of(x) is not None


def whole(x: Tensor, like: Tensor | None = None) -> Tensor:
    """Put a sharded tensor together, on the first process alone if it is a table; all processes must call it.

    Args:
        x: A parameter, or a part of an optimizer's state.
        like: The parameter that `x` is about; None: `x` is one.
    """
    share = share_of(x if like is None else like)
    if share is not None and x.ndim:
        return share.whole(x)
    return x.full_tensor() if is_sharded(x) else x  # type: ignore[attr-defined]


def whole_shape(x: Tensor) -> tuple[int, ...]:
    """Return the shape of what `whole` puts together."""
    share = share_of(x)
    return tuple(x.shape) if share is None else share.shape


def place_like(x: Tensor, like: Tensor) -> Tensor:
    """Copy a whole tensor to where `like` is, sharded as it is; scalars stay whole."""
    if (share := share_of(like)) is not None and x.ndim:
        return share.own_part(x)
    if is_sharded(like) and x.shape == like.shape:
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        return distribute_tensor(x.to(like.device), like.device_mesh, like.placements)
    return x.to(like.device, copy=True)
