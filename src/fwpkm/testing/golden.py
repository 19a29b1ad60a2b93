"""Run golden cases:  python -m fwpkm.testing.golden DIR [--strict]

Prints every case's errors and exits with 1 if any is above its tolerance, or a case can't run. A gradient that its
own rounding noise moves by more than the tolerance is marked "ok ~" and held to that noise instead (see
`fwpkm.testing.golden_model.NOISE_FACTOR`); with --strict, to the tolerance.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from fwpkm.testing import golden_layer, golden_model

Row = tuple[str, float, float]


def load_case(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read NAME.json and the NAME.safetensors beside it."""
    return json.loads(path.read_text()), load_file(path.with_suffix(".safetensors"))


def run_case(path: Path, *, strict: bool = False) -> list[Row]:
    """Run the case `path` (NAME.json beside NAME.safetensors); return (result, error, tolerance) rows.

    Raises:
        ValueError: If the case has another form, or options that neither we nor the release can compute.
    """
    case, tensors = load_case(path)
    if "layer" in case:
        errors = golden_layer.layer_errors(case, tensors)
        return [(name, error, golden_layer.TOLERANCE) for name, error in errors.items()]
    if "config" in case:
        return golden_model.model_errors(case, tensors, strict=strict)
    raise ValueError(f"golden: {path.name} is no case of a known form, it has the fields {sorted(case)}")


def main(argv: list[str] | None = None) -> int:
    """Run all cases of a folder."""
    parser = argparse.ArgumentParser(prog="python -m fwpkm.testing.golden", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds NAME.json beside NAME.safetensors")
    parser.add_argument("--strict", action="store_true", help="allow no rounding noise above the tolerance")
    options = parser.parse_args(argv)
    cases = sorted(options.folder.glob("*.json"))
    if not cases:
        parser.error(f"{options.folder} holds no golden case (NAME.json)")
    worst, bad = [], 0
    for path in cases:
        rows = _run_or_fail(path, strict=options.strict)
        marks = [_mark(row) for row in rows]
        for mark, row in zip(marks, rows, strict=True):
            print(f"{mark} {path.stem:28s} {row[0]:28s} {row[1]:9.2e}  (at most {row[2]:.0e})")
        bad += marks.count("FAIL")
        worst.append(f"     {path.stem:28s} {_worst(rows)}")
    print("worst of each case:", *worst, sep="\n")
    print(f"{len(cases)} cases, {bad} results above tolerance")
    return 1 if bad else 0


def _run_or_fail(path: Path, *, strict: bool) -> list[Row]:
    """Run one case; one that cannot run is a failure of its own, not the end of the others."""
    try:
        return run_case(path, strict=strict)
    except (ValueError, KeyError, OSError) as error:
        print(f"     {path.stem}: {error}")
        return [("can run", float("inf"), 0.0)]


def _mark(row: Row) -> str:
    _, error, tolerance = row
    if not error <= tolerance:  # NaN fails too
        return "FAIL"
    noisy = tolerance > golden_model.GRADIENT_TOLERANCE and error > golden_model.GRADIENT_TOLERANCE
    return "ok ~" if noisy else "ok  "


def _worst(rows: list[Row]) -> str:
    """Name the result that comes nearest to its tolerance."""
    name, error, tolerance = max(rows, key=lambda row: row[1] / max(row[2], 1e-300))
    return f"{error:9.2e} of {tolerance:.0e}  {name}"


if __name__ == "__main__":
    sys.exit(main())
