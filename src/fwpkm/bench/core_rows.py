"""A training step of the memory alone, from queries to answers and back, in the precisions that it takes."""

from collections.abc import Iterator
from functools import partial

import torch

from fwpkm.bench.ceilings import Ceilings, core_work
from fwpkm.bench.core_step import spread_and_hot_inputs, train_step
from fwpkm.bench.measure import Timing, if_it_fits, peak_device_bytes, timed
from fwpkm.bench.parity import check_parity
from fwpkm.bench.rows import Row, seconds
from fwpkm.bench.scan import scan_rows
from fwpkm.bench.shapes import Shape
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.ops.backend import name_backend


def core_rows(
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    runs: int,
    ceilings: Ceilings,
    common: Row,
    *,
    dense: bool,
) -> Iterator[Row]:
    """Measure the core in float32 and in `dtype`, its scan alone, and, if asked for, its dense form.

    Raises:
        ParityError: If the core differs from the definition in either precision.
    """
    common = {**common, "backend": name_backend(device)}
    exact = {**common, "dtype": "float32"}
    check_parity(["core"], device=device, config=shape.config)
    spread, hot = _in_precision(shape, device, torch.float32, runs, ceilings, exact)
    yield from (spread, hot)
    if dense:
        yield _dense_row(shape, device, spread, {**exact, "backend": "torch"})
    yield from scan_rows(shape, device, runs, ceilings, exact)
    if dtype == torch.float32:
        return
    check_parity(["core"], device=device, config=shape.config, dtype=dtype)
    yield from _in_precision(shape, device, dtype, runs, ceilings, common)


def _in_precision(
    shape: Shape, device: torch.device, dtype: torch.dtype, runs: int, ceilings: Ceilings, common: Row
) -> Iterator[Row]:
    layer, spread = FwPKM(shape.config).to(device), 0.0
    inputs = spread_and_hot_inputs(shape.config, shape.streams, shape.tokens, device, dtype)
    for kind, leaves in inputs.items():
        step = partial(train_step, layer, leaves)
        peak = peak_device_bytes(step, device)
        times = timed(step, runs=runs, warmup=2, device=device)
        spread = spread or times.median
        yield {
            "what": "train",
            "system": "core hot" if kind == "hot" else "core",
            **common,
            **core_figures(times, shape),
            "peak_bytes": peak,
            **against_ceilings(layer, times, shape, ceilings),
            "times_spread": times.median / spread,
        }


def _dense_row(shape: Shape, device: torch.device, core: Row, common: Row) -> Row:
    layer = FwPKM(shape.config).to(device)
    leaves = spread_and_hot_inputs(shape.config, shape.streams, shape.tokens, device)["spread"]
    step = partial(train_step, layer, leaves, by_definition=True)
    row = {"what": "train", "system": "core dense", **common}
    found = if_it_fits(
        lambda: (peak_device_bytes(step, device), timed(step, runs=2, warmup=1, device=device))
    )
    if found is None:
        return {**row, "failed": "out of memory"}
    peak, times = found
    row |= {**core_figures(times, shape), "peak_bytes": peak, "times_core": times.median / core["median_s"]}
    return row if peak is None else {**row, "peak_times_core": peak / core["peak_bytes"]}


def core_figures(times: Timing, shape: Shape) -> Row:
    """Return the columns of a step's time."""
    return {**seconds(times), "tokens_s": shape.streams * shape.tokens / times.median}


def against_ceilings(layer: FwPKM, times: Timing, shape: Shape, ceilings: Ceilings) -> Row:
    """Hold what the memory cannot do without against what the device can do: lower bounds of both shares."""
    work = core_work(shape.config.core, layer, shape.tokens)
    flops, moved = (shape.streams * x / times.median for x in (work.flops, work.bytes))
    return {
        "gflops_s": flops / 1e9,
        "share_of_flops": flops / ceilings.flops,
        "gbytes_s": moved / 1e9,
        "share_of_bytes": moved / ceilings.bytes,
    }
