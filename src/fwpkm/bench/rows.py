"""What a measurement gives: rows for a table, a JSON object or a file."""

import csv
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fwpkm.bench.measure import Timing
from fwpkm.files import whole_path
from fwpkm.machine import describe_machine

Row = dict[str, Any]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def seconds(times: Timing) -> Row:
    """Return the columns of a time."""
    return {"median_s": times.median, "p20_s": times.p20, "p80_s": times.p80, "runs": times.runs}


def ratios(values: Timing) -> Row:
    """Return the columns of a ratio that was measured several times."""
    return {"median": values.median, "p20": values.p20, "p80": values.p80, "runs": values.runs}


def machine_columns(device: torch.device | str) -> Row:
    """Name the machine of a run; a row that names a backend of its own keeps that."""
    return {**describe_machine(device), "triton": version("triton") if find_spec("triton") else ""}


def append_rows(path: Path, rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    """Append rows, each with the machine that they were measured on, to a CSV file.

    Where rows have columns that the file lacks, it is written anew, as a whole or not at all; old rows have empty
    cells there.
    """
    new = [{**row, **{name: row.get(name, value) for name, value in machine.items()}} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    known = next(csv.reader(lines[:1]), [])
    columns = list(dict.fromkeys([*known, *(name for row in new for name in row)]))
    if columns == known:
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns, restval="").writerows(new)
        return
    with whole_path(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows([*csv.DictReader(lines), *new])
