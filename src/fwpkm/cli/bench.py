"""Measure speed and memory, as ratios from one run."""

import argparse
import json
from typing import Any

from fwpkm.bench.layer import bench_layer
from fwpkm.bench.machine import describe_machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("what", choices=["layer"], help="layer: the layer's core at the paper's size")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of a training step")
    parser.add_argument("--longest", type=int, default=131072, help="tokens to stream in inference")
    parser.add_argument("--runs", type=int, default=15, help="measured runs of the fast form")
    parser.add_argument("--dense-runs", type=int, default=2, help="measured runs of the dense form")


def run(options: argparse.Namespace) -> int:
    """Print the measurements."""
    machine = describe_machine()
    rows = []
    if not options.json:
        print("  ".join(f"{name}={value}" for name, value in machine.items()))
    for row in bench_layer(
        tokens=options.tokens, longest=options.longest, runs=options.runs, dense_runs=options.dense_runs
    ):
        rows.append(row)
        if not options.json:
            print(_line(row), flush=True)
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
    return 0


def _line(row: dict[str, Any]) -> str:
    cells = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in row.items()
    ]
    return f"{cells[0].removeprefix('what='):18s} " + "  ".join(cells[1:])
