"""Training steps of all systems on one shape, and of the memory's parts: rows for a table and a file.

Nothing is measured before the fast forms agree with the definition, on the very device, in that precision, by that
backend.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from fwpkm.bench.ceilings import Ceilings
from fwpkm.bench.core_rows import against_ceilings, core_figures, core_rows
from fwpkm.bench.measure import Timing, is_out_of_memory, peak_device_bytes, seconds_of, timed
from fwpkm.bench.parity import ParityError, check_parity
from fwpkm.bench.parity_rule import check_delta_rule
from fwpkm.bench.rows import DTYPES, Row
from fwpkm.bench.shapes import Shape, find_shape
from fwpkm.bench.systems import SYSTEMS, UnavailableError, make_system
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.nested import unknown_name

_BACKENDS = {"fwpkm": "auto", "fwpkm torch": "torch"}
_BESIDE, _LONGEST_BESIDE = 3, 10.0
"""Fewest steps of FwPKM after each step of another system, and most seconds: long work slows what comes right after."""


def compare_systems(
    names: Sequence[str], shape_name: str, *, device: str, dtype: str, runs: int
) -> Iterator[Row]:
    """Measure one training step of the memory alone and of every system.

    A system that is not installed, or for which memory is too small, gives a row that says so.

    Args:
        names: Of `SYSTEMS`. Where "fwpkm" comes first, the others' rows say how many times its time and its
            memory they take. On a CPU, which has other work too, it is measured again after each of their steps,
            for as long as that took ("fwpkm_s"), and the median of the ratios is what counts; on a GPU, whose
            memory is short, once.
        shape_name: Of `SHAPES`.
        device: Where to measure.
        dtype: Of the hidden states and projections: "float32" or "bfloat16".
        runs: Measured runs of each.

    Raises:
        ValueError: If a name is not known.
        ParityError: If a fast form differs from the definition; no time of it is reported then.
    """
    shape, where = find_shape(shape_name), torch.device(device)
    problems = [unknown_name("system", name, SYSTEMS) for name in names if name not in SYSTEMS]
    if dtype not in DTYPES:
        problems.append(unknown_name("dtype", dtype, DTYPES))
    if problems:
        raise ValueError("bench compare: " + "; ".join(problems))
    _check(names, shape, where, DTYPES[dtype])
    ceilings = Ceilings.measure(where, streams=shape.streams)
    common = {"shape": shape_name, "streams": shape.streams, "tokens": shape.tokens, "dtype": dtype}
    yield from core_rows(shape, where, DTYPES[dtype], runs, ceilings, common, dense="dense" in names)
    first: Row = {}
    beside: Callable[[], None] | None = None
    for name in names:
        if where.type == "cuda":
            torch.cuda.empty_cache()
        row, step = _measure(name, shape, where, DTYPES[dtype], runs, ceilings, beside)
        if name == "fwpkm":
            first, beside = row, step if where.type == "cpu" else None
        yield {"what": "train", "system": name, **common, **_times(row, first), **row}


def _check(names: Sequence[str], shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
    for backend in dict.fromkeys(_BACKENDS[name] for name in names if name in _BACKENDS):
        check_parity(["training"], device=device, dtype=dtype, config=shape.config, backend=backend)


def _measure(
    name: str,
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    runs: int,
    ceilings: Ceilings,
    beside: Callable[[], None] | None,
) -> tuple[Row, Callable[[], None] | None]:
    """Return a system's row, and its training step if it has one."""
    try:
        if name == "gdn":
            check_delta_rule(device=device, dtype=dtype)
        system = make_system(name, shape, device, dtype)
        size = (shape.streams, shape.tokens, shape.config.dim)
        x = torch.randn(size, device=device, dtype=dtype, requires_grad=True)
        backend = system.name_backend(x)
        step = partial(system.train_step, x)
        peak = peak_device_bytes(step, device)
        times, shares = _in_turns(step, beside, runs, device)
    except (UnavailableError, ParityError) as error:  # the others can be measured all the same
        return {"failed": str(error)}, None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {"failed": "out of memory"}, None
    row = {**core_figures(times, shape), **shares, "peak_bytes": peak, "backend": backend}
    if system.counted and isinstance(system.module, FwPKM):
        row |= against_ceilings(system.module, times, shape, ceilings)
    return row, step


def _in_turns(
    step: Callable[[], None], beside: Callable[[], None] | None, runs: int, device: torch.device
) -> tuple[Timing, Row]:
    """Measure a step, and after each run of it FwPKM's for as long: what slows the machine down slows both."""
    if beside is None:
        return timed(step, runs=runs, warmup=2, device=device), {}
    for _ in range(2):
        step()
    own, others = [], []
    for _ in range(runs):
        own.append(seconds_of(step, device))
        beside()
        others.append(_median_for(beside, min(own[-1], _LONGEST_BESIDE), device))
    times = statistics.median(a / b for a, b in zip(own, others, strict=True))
    return Timing.of(own), {"times_fwpkm": times, "fwpkm_s": statistics.median(others)}


def _median_for(step: Callable[[], None], seconds: float, device: torch.device) -> float:
    """Measure a step for some seconds, but a few times at least."""
    spent: list[float] = []
    while len(spent) < _BESIDE or sum(spent) < seconds:
        spent.append(seconds_of(step, device))
    return statistics.median(spent)


def _times(row: Row, fwpkm: Row) -> Row:
    """Return how many times the time and the peak memory of the layer a system takes, where both are known."""
    columns = {"times_fwpkm": "median_s", "peak_times_fwpkm": "peak_bytes"}
    return {name: row[of] / fwpkm[of] for name, of in columns.items() if row.get(of) and fwpkm.get(of)}
