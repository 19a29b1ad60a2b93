"""Time and memory of a function, with their spread."""

import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

_LAUNCH_CYCLES = 20_000_000
"""Of a GPU's clock, some ten milliseconds: time for the host to launch what is measured."""


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


def timed(
    fn: Callable[[], object], *, runs: int, warmup: int = 1, device: torch.device | str = "cpu"
) -> Timing:
    """Call `fn` a few times unmeasured, then `runs` times measured, on `device`."""
    for _ in range(warmup):
        fn()
    return Timing.of([seconds_of(fn, device) for _ in range(runs)])


def seconds_of(fn: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """Measure one call, from when `device` has nothing left to do until it has so again."""
    where = torch.device(device)
    _synchronise(where)
    start = time.perf_counter()
    fn()
    _synchronise(where)
    return time.perf_counter() - start


def timed_on_device(
    fn: Callable[[], object], *, runs: int, warmup: int, device: torch.device | str
) -> Timing:
    """Do the same by the GPU's own clock; `fn` must not wait for the GPU, so that its launches queue up.

    The GPU is given something to do first, while the host launches: what the host takes is not measured.
    """
    if torch.device(device).type != "cuda":
        return timed(fn, runs=runs, warmup=warmup, device=device)
    for _ in range(warmup):
        fn()
    return Timing.of([_seconds_between_events(fn, torch.device(device)) for _ in range(runs)])


def _seconds_between_events(fn: Callable[[], object], device: torch.device) -> float:
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        torch.cuda._sleep(_LAUNCH_CYCLES)
        start.record()
        fn()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory was too small, on a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def if_it_fits(fn: Callable[[], T]) -> T | None:
    """Return what `fn` does, or nothing if memory is too small for it."""
    try:
        return fn()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


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
    """Measure how far a GPU's memory in use rises above its present level while `fn` runs.

    None on a CPU: what one measurement frees stays with the process and hides what the next one needs, so there
    each has to have a process of its own (fwpkm.bench.peak, fwpkm.bench.model).
    """
    if device.type != "cuda":
        return None
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
