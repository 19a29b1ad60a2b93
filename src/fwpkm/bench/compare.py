"""Training steps of all systems on one shape, and what FwPKM's cost by context length: rows for a table and a file.

Nothing is measured before the fast forms agree with the definition on the very device.
"""

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fwpkm.bench.ceilings import Ceilings, core_work
from fwpkm.bench.core_step import core_inputs, train_step
from fwpkm.bench.layer import check_parity
from fwpkm.bench.measure import Timing, peak_device_bytes, timed
from fwpkm.bench.shapes import Shape, find_shape
from fwpkm.bench.systems import SYSTEMS, System, make_system
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.machine import describe_machine
from fwpkm.nested import unknown_name

Row = dict[str, Any]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def compare_systems(
    names: Sequence[str], shape_name: str, *, device: str, dtype: str, runs: int
) -> Iterator[Row]:
    """Measure one training step of every system; a system that cannot run gives a row that says why.

    Args:
        names: Of `SYSTEMS`.
        shape_name: Of `SHAPES`.
        device: Where to measure.
        dtype: Of the hidden states and projections: "float32" or "bfloat16".
        runs: Measured runs of each.

    Raises:
        ValueError: If a name is not known.
        RuntimeError: If the fast forms differ from the definition; no time is reported then.
    """
    shape, where = find_shape(shape_name), torch.device(device)
    problems = [unknown_name("system", name, SYSTEMS) for name in names if name not in SYSTEMS]
    if dtype not in DTYPES:
        problems.append(unknown_name("dtype", dtype, DTYPES))
    if problems:
        raise ValueError("bench compare: " + "; ".join(problems))
    check_parity(device=where)
    ceilings = Ceilings.measure(where, streams=shape.streams)
    common = {"shape": shape_name, "streams": shape.streams, "tokens": shape.tokens, "dtype": dtype}
    for name in names:
        measured = _measure(name, shape, where, DTYPES[dtype], runs, ceilings)
        yield {"what": "train", "system": name, **common, **measured}
        if where.type == "cuda":
            torch.cuda.empty_cache()
    yield from _core_rows(shape, where, runs, ceilings, {**common, "dtype": "float32"})


def _measure(
    name: str, shape: Shape, device: torch.device, dtype: torch.dtype, runs: int, ceilings: Ceilings
) -> Row:
    try:
        system = make_system(name, shape, device, dtype)
        size = (shape.streams, shape.tokens, shape.config.dim)
        x = torch.randn(size, device=device, dtype=dtype, requires_grad=True)
        peak = peak_device_bytes(lambda: system.train_step(x), device)
        times = timed(lambda: system.train_step(x), runs=runs, warmup=2)
    except (RuntimeError, torch.OutOfMemoryError) as error:  # says so in its row; the others are measured
        return {"failed": str(error).splitlines()[0][:160]}
    return {**_figures(times, shape), "peak_bytes": peak, **_against(system, times, shape, ceilings)}


def _core_rows(
    shape: Shape, device: torch.device, runs: int, ceilings: Ceilings, common: Row
) -> Iterator[Row]:
    """Measure the memory alone, from queries to answers and back, on spread reads and with all tokens on k slots."""
    layer = FwPKM(shape.config).to(device)
    system, spread = System(module=layer, run=lambda x: x, counted=True), 0.0
    for name in ("core", "core hot"):
        inputs = tuple(x.detach().to(device) for x in core_inputs(shape.config, shape.streams, shape.tokens))
        if name == "core hot":
            inputs = tuple(x[:, :1].expand_as(x).clone() for x in inputs)
        leaves = tuple(x.requires_grad_() for x in inputs)
        step = partial(train_step, layer, leaves)
        row = {"what": "train", "system": name, **common, "peak_bytes": peak_device_bytes(step, device)}
        times = timed(step, runs=runs, warmup=2)
        spread = spread or times.median
        against = _against(system, times, shape, ceilings)
        yield {**row, **_figures(times, shape), **against, "times_spread": times.median / spread}


def _figures(times: Timing, shape: Shape) -> Row:
    spread = {"median_s": times.median, "p20_s": times.p20, "p80_s": times.p80, "runs": times.runs}
    return {**spread, "tokens_s": shape.streams * shape.tokens / times.median}


def _against(system: System, times: Timing, shape: Shape, ceilings: Ceilings) -> Row:
    """Hold the memory's own work, without projections, against what the device can do: a lower bound of both shares."""
    if not system.counted:
        return {}
    assert isinstance(system.module, FwPKM)
    work = core_work(shape.config.core, system.module, shape.tokens)
    flops, moved = (shape.streams * x / times.median for x in (work.flops, work.bytes))
    return {
        "gflops_s": flops / 1e9,
        "share_of_flops": flops / ceilings.flops,
        "gbytes_s": moved / 1e9,
        "share_of_bytes": moved / ceilings.bytes,
    }


def append_rows(path: Path, rows: Sequence[Row]) -> None:
    """Append rows, each with the machine they were measured on, to a CSV file; old rows lack new columns' cells."""
    machine = {**describe_machine(), "triton": version("triton") if find_spec("triton") else ""}
    new = [{**row, **machine} for row in rows]
    old = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    columns = list(dict.fromkeys(name for row in [*old, *new] for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows([*old, *new])
