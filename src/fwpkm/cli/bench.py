"""Measure speed and memory, as ratios from one run."""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from fwpkm.bench.compare import compare_systems
from fwpkm.bench.layer import bench_layer
from fwpkm.bench.lengths import SYSTEMS_BY_LENGTH, draw_lengths, measure_lengths
from fwpkm.bench.model import MEASUREMENTS, RECIPE, bench_model
from fwpkm.bench.rows import append_rows, machine_columns
from fwpkm.bench.shapes import SHAPES
from fwpkm.bench.systems import SYSTEMS
from fwpkm.bench.twins import compare_twins
from fwpkm.files import write_text
from fwpkm.machine import COMMIT_VARIABLE, is_clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    layer = kinds.add_parser("layer", help="the layer's core at the paper's size, against its dense form")
    layer.add_argument("--tokens", type=int, default=2048, help="tokens of a training step")
    layer.add_argument("--longest", type=int, default=131072, help="tokens to stream in inference")
    layer.add_argument("--runs", type=int, default=15, help="measured runs of the fast form")
    layer.add_argument("--dense-runs", type=int, default=2, help="measured runs of the dense form")
    model = kinds.add_parser(
        "model", help="a recipe's whole model: a training step, a long stream in pieces, decoding"
    )
    _add_model_arguments(model)
    compare = kinds.add_parser("compare", help="a training step of the layer and of others of its width")
    compare.add_argument("--systems", nargs="+", default=list(SYSTEMS), help=", ".join(SYSTEMS))
    compare.add_argument("--runs", type=int, default=10, help="measured runs of each")
    lengths = kinds.add_parser("lengths", help="prefill and decoding by context length, as rows and as plots")
    lengths.add_argument(
        "--lengths", type=int, nargs="+", default=[4096, 16384, 65536], help="tokens of context"
    )
    lengths.add_argument("--systems", nargs="+", default=list(SYSTEMS_BY_LENGTH), help="of the default ones")
    lengths.add_argument("--plots", type=Path, help="folder for prefill.svg and decode.svg")
    twins = kinds.add_parser(
        "twins", help="a training step of a recipe's model and of its twin without memory"
    )
    _add_twin_arguments(twins)
    for kind in (compare, lengths):
        kind.add_argument("--shape", default="paper-one", help=", ".join(SHAPES))
        kind.add_argument(
            "--dtype", default="float32", help="of hidden states and projections: float32, bfloat16"
        )
    for kind in (compare, lengths, twins):
        kind.add_argument(
            "--append", type=Path, help="CSV file to append the rows to, from a clean tree only"
        )
        kind.add_argument(
            "--allow-dirty",
            action="store_true",
            help="append rows of sources that differ from their commit, marked +",
        )
    for kind in (layer, model, compare, lengths, twins):
        kind.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        kind.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", default=RECIPE, help=f"a file or a short name; {RECIPE}")
    parser.add_argument("--set", dest="settings", metavar="NAME=VALUE", action="append", default=[])
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a training step")
    parser.add_argument(
        "--longest", type=int, default=131072, help="tokens to read in pieces, and to decode behind"
    )
    parser.add_argument("--piece", type=int, default=2048, help="tokens of a piece")
    parser.add_argument(
        "--only", choices=MEASUREMENTS, nargs="+", default=list(MEASUREMENTS[:-1]), help="what to measure"
    )


def _add_twin_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="whose model has the memory: a file or a short name")
    parser.add_argument("twin", help="whose model lacks it")
    parser.add_argument("--streams", type=int, default=8, help="sequences of a step")
    parser.add_argument("--tokens", type=int, default=512, help="their length")
    parser.add_argument("--runs", type=int, default=9, help="measured steps of each")
    parser.add_argument(
        "--parts",
        type=int,
        default=1,
        help="parts of a step whose gradients are added up, to need less memory",
    )
    parser.add_argument("--compile", action="store_true", help="have torch.compile make code of both models")
    parser.add_argument("--set", dest="settings", metavar="NAME=VALUE", action="append", default=[])


def run(options: argparse.Namespace) -> int:
    """Print the measurements."""
    append = getattr(options, "append", None)
    machine = machine_columns(options.device)  # once: rows that are appended would make the tree look changed
    if append and not is_clean(machine["commit"]) and not options.allow_dirty:
        raise ValueError(
            f"{options.what}: --append needs sources that are exactly a commit, got commit={machine['commit']}; commit "
            f"first, name it in {COMMIT_VARIABLE} where the repository is not at hand, or pass --allow-dirty"
        )
    rows = []
    if not options.json:
        print("  ".join(f"{name}={value}" for name, value in machine.items()))
    for row in _rows(options):
        rows.append(row)
        if append:
            append_rows(append, [row], machine)
        if not options.json:
            print(_line(row), flush=True)
    if getattr(options, "plots", None):
        options.plots.mkdir(parents=True, exist_ok=True)
        for what in ("prefill", "decode"):
            write_text(options.plots / f"{what}.svg", draw_lengths(rows, what))
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
    return 0


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.what == "layer":
        return bench_layer(
            tokens=options.tokens, longest=options.longest, runs=options.runs, dense_runs=options.dense_runs,
            device=options.device,
        )  # fmt: skip
    if options.what == "compare":
        how = {"device": options.device, "dtype": options.dtype, "runs": options.runs}
        return compare_systems(options.systems, options.shape, **how)
    if options.what == "lengths":
        how = {"device": options.device, "dtype": options.dtype, "systems": options.systems}
        return measure_lengths(options.lengths, options.shape, **how)
    if options.what == "twins":
        sizes = {"streams": options.streams, "tokens": options.tokens, "runs": options.runs}
        return compare_twins(
            options.recipe, options.twin, device=options.device, parts=options.parts, settings=options.settings,
            compiled=options.compile, **sizes,
        )  # fmt: skip
    return bench_model(
        recipe=options.recipe, settings=options.settings, tokens=options.tokens, longest=options.longest,
        piece=options.piece, whats=options.only, device=options.device,
    )  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    cells = [f"{name}={_cell(value)}" for name, value in row.items()]
    return f"{cells[0].removeprefix('what='):18s} " + "  ".join(cells[1:])


def _cell(value: object) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(_cell(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
