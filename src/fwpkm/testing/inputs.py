"""Random inputs by seed, the same on every device: for tests and for benchmarks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig

T = TypeVar("T", bound="_Inputs")


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """Named tensors; integers and booleans never change their dtype."""

    def map(self: T, fn: Callable[[Tensor], Tensor]) -> T:
        """Apply `fn` to every tensor."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: fn(x) for name, x in values.items() if isinstance(x, Tensor)})

    def to(self: T, where: torch.device | torch.dtype | str) -> T:
        """Return the same inputs on a device, or floats in another dtype; no graph."""
        as_dtype = isinstance(where, torch.dtype)
        return self.map(
            lambda x: x.detach() if as_dtype and not x.is_floating_point() else x.detach().to(where)
        )

    def leaves(self: T) -> T:
        """Return copies whose floats require gradients."""
        return self.map(lambda x: x.detach().clone().requires_grad_(x.is_floating_point()))

    def floats(self) -> dict[str, Tensor]:
        """Return the floating-point tensors by name."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: x for name, x in named if isinstance(x, Tensor) and x.is_floating_point()}


@dataclass(frozen=True, kw_only=True)
class ScanInputs(_Inputs):
    """What `memory_scan` takes."""

    table: Tensor
    rows: Tensor
    w: Tensor
    write_w: Tensor
    target: Tensor
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CoreInputs(_Inputs):
    """What the core takes: queries, values, gates; sub-keys and table of one memory."""

    q: Tensor  # [B, T, H, Dk]
    v: Tensor  # [B, T, Dv]
    gate: Tensor  # [B, T]
    keys: Tensor  # [2, H, n, Dk/2]
    values: Tensor  # [N, Dv]


def make_scan_inputs(
    seed: int,
    *,
    reads: Sequence[int],
    writes: Sequence[int],
    num_rows: int = 7,
    pairs: int = 3,
    width: int = 5,
    distinct: bool = False,
    dtype: torch.dtype = torch.float64,
) -> ScanInputs:
    """Draw a table and reads of it; `distinct` keeps a token from reading one row twice."""
    draw = torch.Generator().manual_seed(seed)
    num_reads, num_writes = sum(reads), sum(writes)
    if distinct:
        rows = torch.rand(num_reads, num_rows, generator=draw).argsort(dim=-1)[:, :pairs].contiguous()
    else:
        rows = torch.randint(num_rows, (num_reads, pairs), generator=draw)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    return ScanInputs(
        table=randn(num_rows, width),
        rows=rows,
        w=randn(num_reads, pairs).softmax(-1),
        write_w=randn(num_writes, pairs).softmax(-1),
        target=randn(num_writes, width),
        reads=tuple(reads),
        writes=tuple(writes),
    )


def make_core_inputs(
    seed: int,
    *,
    B: int = 1,
    T: int = 11,
    H: int = 1,
    n: int = 5,
    Dk: int = 4,
    Dv: int = 3,
    spread: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> CoreInputs:
    """Draw one memory and B streams of T tokens; a small `spread` sends all tokens to a few slots."""
    draw = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    return CoreInputs(
        q=randn(1, 1, H, Dk) * (1 - spread) + spread * randn(B, T, H, Dk),
        v=randn(B, T, Dv),
        gate=randn(B, T).sigmoid(),
        keys=randn(2, H, n, Dk // 2),
        values=randn(n * n, Dv),
    )


def small_config(**changes: Any) -> FwPKMConfig:
    """Return a layer small enough for hundreds of runs, with sizes that cannot be mistaken for each other."""
    sizes = {
        "dim": 7,
        "num_subkeys": 5,
        "key_dim": 6,
        "value_dim": 8,
        "num_heads": 2,
        "topk": 3,
        "chunk_size": 4,
    }
    return FwPKMConfig(**{**sizes, **changes})


def make_layer(seed: int = 0, *, dtype: torch.dtype = torch.float64, **changes: Any) -> FwPKM:
    """Return a `small_config` layer, all of whose slow weights are drawn: none is at its neutral start."""
    with torch.random.fork_rng(devices=[]):  # the layer itself draws from the global generator
        torch.manual_seed(seed)
        layer = FwPKM(small_config(table_seed=seed, **changes)).to(dtype)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if not name.startswith("initial"):
                p.add_(torch.randn(p.shape, generator=draw, dtype=torch.float64), alpha=0.3)
    return layer


def make_hidden(layer: FwPKM, B: int, T: int, seed: int = 0, *, dtype: torch.dtype | None = None) -> Tensor:
    """Draw hidden states [B, T, D] for `layer`, in the dtype of its slow weights unless another is given."""
    draw = torch.Generator().manual_seed(1_000_003 + seed)
    x = torch.randn(B, T, layer.config.dim, generator=draw, dtype=torch.float64)
    return x.to(layer.out_proj.weight.device, dtype or layer.out_proj.weight.dtype)
