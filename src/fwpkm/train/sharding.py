"""Weights of which every process keeps a share (FSDP2).

Torch's modules for it are imported where they are needed: that takes seconds, and most runs have none.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from fwpkm.models.decoder import Decoder
from fwpkm.train.tables import trained_tables


def shard(model: Decoder, world: int, device: torch.device) -> None:
    """Let every process keep a share of each block only. Gradients are added up, not averaged.

    Tables, sub-keys and scalars stay whole on every process: rows are looked up one by one, and FSDP2 takes no scalars.

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
    """Whether a tensor is a share of a larger one."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def whole(x: Tensor) -> Tensor:
    """Put a sharded tensor together; all processes must call it."""
    return x.full_tensor() if is_sharded(x) else x  # type: ignore[attr-defined]


def place_like(x: Tensor, like: Tensor) -> Tensor:
    """Copy a whole tensor to where `like` is, sharded as it is; counts and other scalars stay whole."""
    if is_sharded(like) and x.shape == like.shape:
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        return distribute_tensor(x.to(like.device), like.device_mesh, like.placements)
    return x.clone() if x.ndim == 0 else x.to(like.device, copy=True)
