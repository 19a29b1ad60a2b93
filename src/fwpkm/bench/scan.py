"""The memory scan alone, forward and backward, against the device's bandwidth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fwpkm.bench.ceilings import Ceilings
from fwpkm.bench.core_step import spread_and_hot_inputs, train_step
from fwpkm.bench.measure import timed_on_device
from fwpkm.bench.rows import Row, seconds
from fwpkm.bench.shapes import Shape
from fwpkm.layers.fwpkm import FwPKM

FORWARD, BACKWARD = "fwpkm.memory_scan.default", "fwpkm.memory_scan_backward.default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanBytes:
    """What a scan has to move at the very least, by the distinct rows that it touches."""

    forward: int
    backward: int

    @classmethod
    def count(cls, rows: Tensor, reads: Sequence[int], writes: Sequence[int], row_bytes: int) -> "ScanBytes":
        """Count every pass that the recurrence defines over a row once a chunk, however many of its pairs share it.

        Forward: all rows of the call fetched (read, written); each chunk's rows read, and those it writes written
        (read, written). Backward: writes undone (read, written); V for dw; G for u and for da; G updated (read,
        written), and cleared for all rows of the call.

        Args:
            rows: Row of each token's pairs [Tr, J], chunk after chunk, a chunk's written tokens first.
            reads: Tokens that read, by chunk.
            writes: Tokens that write, by chunk.
            row_bytes: Of one row.
        """
        chunks = list(zip(rows.split(list(reads)), writes, strict=True))
        read = sum(part.unique().numel() for part, _ in chunks)
        written = sum(part[:count].unique().numel() for part, count in chunks)
        of_call = rows.unique().numel()
        return cls(
            forward=row_bytes * (2 * of_call + read + 2 * written),
            backward=row_bytes * (4 * written + 3 * read + of_call),
        )


@dataclass(kw_only=True)
class OperationCalls(TorchDispatchMode):
    """Keep the operations that run meanwhile, with what they were given, by name."""

    names: tuple[str, ...]
    found: dict[str, Callable[[], object]] = field(default_factory=dict)
    given: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and keep it if it is one of those."""
        if (name := str(func)) in self.names:
            self.given[name] = args
            self.found[name] = lambda: func(*args)
        return func(*args, **(kwargs or {}))


def scan_rows(
    shape: Shape, device: torch.device, runs: int, ceilings: Ceilings, common: Row
) -> Iterator[Row]:
    """Measure the scan of a training step, forward and backward, on spread reads and with all tokens on k slots."""
    layer = FwPKM(shape.config).to(device)
    inputs = spread_and_hot_inputs(shape.config, shape.streams, shape.tokens, device)
    for kind, leaves in inputs.items():
        with OperationCalls(names=(FORWARD, BACKWARD)) as calls:
            train_step(layer, leaves)
        _, rows, *_, reads, writes = calls.given[FORWARD]
        moved = ScanBytes.count(rows, reads, writes, shape.config.value_dim * 4)
        parts = {"forward": (FORWARD, moved.forward), "backward": (BACKWARD, moved.backward)}
        for part, (name, num_bytes) in parts.items():
            times = timed_on_device(_without_graph(calls.found[name]), runs=runs, warmup=3, device=device)
            rate = num_bytes / times.median
            name = f"scan {part}" + (" hot" if kind == "hot" else "")
            share = {
                "mbytes": num_bytes / 1e6,
                "gbytes_s": rate / 1e9,
                "share_of_bytes": rate / ceilings.bytes,
            }
            yield {"what": "train", "system": name, **common, **seconds(times), **share}


def _without_graph(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return call()

    return run
