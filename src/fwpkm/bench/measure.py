"""Time and memory of a function, with their spread."""

import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of repeated calls."""

    median: float
    p20: float
    p80: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Summarise measured calls."""
        if len(seconds) < 2:
            return cls(median=seconds[0], p20=seconds[0], p80=seconds[0], runs=1)
        cuts = statistics.quantiles(seconds, n=5, method="inclusive")
        return cls(median=statistics.median(seconds), p20=cuts[0], p80=cuts[-1], runs=len(seconds))


def timed(fn: Callable[[], object], *, runs: int, warmup: int = 1) -> Timing:
    """Call `fn` a few times unmeasured, then `runs` times measured; waits for the GPU where there is one."""
    for _ in range(warmup):
        fn()
    return Timing.of([seconds_of(fn) for _ in range(runs)])


def seconds_of(fn: Callable[[], object]) -> float:
    """Measure one call."""
    _synchronise()
    start = time.perf_counter()
    fn()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_extra_bytes(fn: Callable[[], object]) -> int | None:
    """Measure how far the process's resident memory rises above its present level while `fn` runs.

    Linux only (it resets the kernel's own high-water mark); None elsewhere.
    """
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    gc.collect()
    reset.write_text("5")
    before = _status_bytes("VmRSS")
    fn()
    return max(0, _status_bytes("VmHWM") - before)


def peak_device_bytes(fn: Callable[[], object], device: torch.device) -> int | None:
    """Measure how far memory in use rises above its present level while `fn` runs, on a GPU or of this process."""
    if device.type != "cuda":
        return peak_extra_bytes(fn)
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    fn()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def resident_bytes() -> int | None:
    """Return the process's resident memory; None where Linux's /proc is not to be had."""
    return _status_bytes("VmRSS") if Path("/proc/self/status").exists() else None


def peak_bytes() -> int | None:
    """Return the most that was ever resident of this process; None where Linux's /proc is not to be had."""
    return _status_bytes("VmHWM") if Path("/proc/self/status").exists() else None


def _status_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {field}"
    return int(found[1]) * 1024
