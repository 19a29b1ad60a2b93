"""How fast this machine multiplies and copies, and how much of both the core cannot do without."""

from dataclasses import dataclass

import torch

from fwpkm.bench.measure import timed_on_device
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.schedule import plan_windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Arithmetic and traffic of one call."""

    flops: float
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Measured speeds of the machine, per second."""

    flops: float
    """Of float32 matrix products of the score product's own shape."""
    bytes: float
    """Read and written by a copy far larger than the caches."""

    def seconds(self, work: Work) -> float:
        """Return how long `work` takes at these speeds, one after the other."""
        return work.flops / self.flops + work.bytes / self.bytes

    @classmethod
    def measure(cls, device: torch.device | str = "cpu", *, streams: int = 1) -> "Ceilings":
        """Measure both on `device`, a CPU with its present number of threads, for so many streams at once."""
        with torch.device(device):
            return cls._measure(2 * streams, device)

    @classmethod
    def _measure(cls, halves: int, device: torch.device | str) -> "Ceilings":
        a, b = torch.randn(halves, 512, 256), torch.randn(halves, 256, 512)
        out = torch.empty(halves, 512, 512)
        product = timed_on_device(lambda: torch.bmm(a, b, out=out), runs=50, warmup=10, device=device)
        source, target = torch.randn(64 << 20), torch.empty(64 << 20)
        copy = timed_on_device(lambda: target.copy_(source), runs=9, warmup=2, device=device)
        return cls(
            flops=2 * halves * 512 * 256 * 512 / product.p20,
            bytes=2 * source.numel() * source.element_size() / copy.p20,
        )


def core_work(options: CoreOptions, layer: FwPKM, tokens: int) -> Work:
    """Count what one stream's forward and backward over `tokens` fresh tokens needs at the very least.

    Products: the scores of all reads; the gradients of sub-keys touch k of n, and are none. Bytes: each pass
    over the pairs' rows that the recurrence defines, counted once for reading and once more for writing: fetch
    the rows; read (v^); write; undo; gradients of weights by V and by G, G gathered, G updated by write and
    read, G cleared.
    """
    config = layer.config
    windows = plan_windows(tokens, options)
    reads = sum(win.num_tokens for win in windows)
    writes = sum(win.num_written for win in windows)
    product = 2 * config.num_heads * config.num_subkeys * config.key_dim  # flops of one token's scores
    row = config.value_dim * 4
    pairs = config.num_heads * options.topk
    read_passes = 2 + 1 + 1 + 2 + 1  # fetch (read, write), v^, V for dw, G update (read, write), G cleared
    write_passes = 2 + 2 + 1 + 1  # write, undo (read, write each), G for u, G for da
    return Work(
        flops=float(product * reads),
        bytes=float(row * pairs * (read_passes * reads + write_passes * writes)),
    )
