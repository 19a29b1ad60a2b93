"""What is compared: each system as a layer of the same width, hidden states in and out, forward and backward."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fwpkm.bench.shapes import Shape
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNet, GatedDeltaNetConfig
from fwpkm.ops.backend import name_backend, use_backend
from fwpkm.ops.delta_rule import dispatch

PEER = "fast-weight-product-key-memory"
"""A pure PyTorch layer on PyPI; measured where it is installed."""


class UnavailableError(RuntimeError):
    """A system needs what is not installed here; the others can be measured without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One contestant."""

    module: nn.Module
    run: Callable[[Tensor], Tensor]
    """Hidden states [B, T, D] to the same."""
    counted: bool = False
    """Whether the memory's own floors (fwpkm.bench.ceilings) apply."""
    backend: str = "auto"
    """What its operations run as (fwpkm.ops.backend)."""
    made_of_torch: bool = False
    """Whether it has no operations of ours."""

    def name_backend(self, x: Tensor) -> str:
        """Name what its step really runs on hidden states like `x`: torch, numba, triton or fla."""
        if self.made_of_torch:
            return "torch"
        with delta_rule_backends() as used:
            self.train_step(x[:, :2].detach().requires_grad_())
        with use_backend(self.backend):
            return "+".join(sorted(used)) or name_backend(x.device)

    def train_step(self, x: Tensor) -> None:
        """Run forward and backward, the input doubling as the gradient that comes in."""
        with use_backend(self.backend):
            out = self.run(x)
            wanted = [p for p in self.module.parameters() if p.requires_grad]
            torch.autograd.grad(out, [x, *wanted], x.detach(), allow_unused=True)


@contextmanager
def delta_rule_backends() -> Iterator[set[str]]:
    """Collect what the gated delta rule is carried out by meanwhile; empty if it is not asked for."""
    used: set[str] = set()
    resolve = dispatch.resolve_backend

    def noted(*given: Any) -> Any:
        used.add(chosen := resolve(*given))
        return chosen

    with patch.object(dispatch, "resolve_backend", noted):
        yield used


@contextmanager
def fastest_attention(device: torch.device) -> Iterator[None]:
    """Let PyTorch's attention on a GPU try the kernels in the order of their speed there, cuDNN's first."""
    if device.type != "cuda":
        yield
        return
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    with sdpa_kernel(order, set_priority=True):
        yield


class CausalAttention(nn.Module):
    """Causal attention in heads of 64 by `scaled_dot_product_attention`, with its projections."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_heads = max(1, dim // 64)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix [B, T, D]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        with fastest_attention(x.device):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(-2))


def make_system(name: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> System:
    """Build one system; memories keep their tables in float32.

    Raises:
        UnavailableError: If it needs a package that is not there.
    """
    torch.manual_seed(0)
    return SYSTEMS[name](shape, device, dtype)


def _fwpkm(shape: Shape, device: torch.device, dtype: torch.dtype) -> System:
    layer = FwPKM(shape.config).to(device, dtype)
    return System(module=layer, run=lambda x: layer(x)[0], counted=True)


def _plain(shape: Shape, device: torch.device, dtype: torch.dtype) -> System:
    layer = FwPKM(shape.config).to(device, dtype)
    return System(module=layer, run=lambda x: layer(x)[0], counted=True, backend="torch")


def _dense(shape: Shape, device: torch.device, dtype: torch.dtype) -> System:
    """Build the release's arithmetic: dense tables, every gradient by autograd."""
    layer = FwPKM(shape.config).to(device, dtype)

    def run(x: Tensor) -> Tensor:
        q, v, gate = layer.project(x)
        with torch.autocast(x.device.type, enabled=False):
            v_hat, _ = layer.initial_state(x.shape[0]).advance(q, v, gate, by_definition=True)
        return layer.fuse(v_hat, v, gate, x, None)

    return System(module=layer, run=run, made_of_torch=True)


def _peer(shape: Shape, device: torch.device, dtype: torch.dtype) -> System:
    if importlib.util.find_spec("fast_weight_product_key_memory") is None:
        raise UnavailableError(f"bench compare: system 'peer' needs the package of PyPI: pip install {PEER}")
    config, package = shape.config, importlib.import_module("fast_weight_product_key_memory")
    layer = package.fwPKM(
        config.dim,
        heads=config.num_heads,
        chunk_size=config.chunk_size,
        num_memories=config.num_slots,
        dim_queries_keys=config.num_heads * config.key_dim // 2,
        dim_values=config.value_dim,
        topk=config.topk,
    ).to(device)

    def run(x: Tensor) -> Tensor:  # its .bfloat16() does not run
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return layer(x.float()).to(x.dtype)

    return System(module=layer, run=run, made_of_torch=True)


def _attention(shape: Shape, device: torch.device, dtype: torch.dtype) -> System:
    layer = CausalAttention(shape.config.dim).to(device, dtype)
    return System(module=layer, run=layer, made_of_torch=True)


def make_delta_net(shape: Shape, device: torch.device, dtype: torch.dtype) -> GatedDeltaNet:
    """Build a Gated DeltaNet of the shape's width, with heads of 128 values."""
    heads = max(1, shape.config.dim // 128)
    config = GatedDeltaNetConfig(
        num_key_heads=heads, num_value_heads=heads, value_head_dim=shape.config.dim // heads
    )
    return GatedDeltaNet(shape.config.dim, config).to(device, dtype)


def _delta_net(shape: Shape, device: torch.device, dtype: torch.dtype) -> System:
    layer = make_delta_net(shape, device, dtype)
    return System(module=layer, run=lambda x: layer(x)[0])


SYSTEMS: dict[str, Callable[[Shape, torch.device, torch.dtype], System]] = {
    "fwpkm": _fwpkm,
    "fwpkm torch": _plain,
    "gdn": _delta_net,
    "attention": _attention,
    "dense": _dense,
    "peer": _peer,
}
