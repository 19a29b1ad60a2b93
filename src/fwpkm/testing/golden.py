"""Run golden cases:  python -m fwpkm.testing.golden DIR

Prints every case's errors and exits with 1 if any is above its tolerance.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from fwpkm.testing import golden_layer, golden_model

Errors = dict[str, float]
Runner = Callable[[Mapping[str, Any], Mapping[str, Tensor]], Errors]


def run_case(path: Path) -> list[tuple[str, float, float]]:
    """Run the case `path` (NAME.json beside NAME.safetensors); return (result, error, tolerance) rows."""
    case = json.loads(path.read_text())
    tensors = load_file(path.with_suffix(".safetensors"))
    if "layer" in case:
        errors = golden_layer.layer_errors(case, tensors)
        return [(name, error, golden_layer.TOLERANCE) for name, error in errors.items()]
    if "config" in case:
        return golden_model.model_errors(case, tensors)
    raise ValueError(f"golden: {path.name} is no case of a known form, it has the fields {sorted(case)}")


def main(argv: list[str] | None = None) -> int:
    """Run all cases of a folder."""
    parser = argparse.ArgumentParser(prog="python -m fwpkm.testing.golden", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds NAME.json beside NAME.safetensors")
    folder = parser.parse_args(argv).folder
    cases = sorted(folder.glob("*.json"))
    if not cases:
        parser.error(f"{folder} holds no golden case (NAME.json)")
    bad = 0
    for path in cases:
        for name, error, tolerance in run_case(path):
            failed = not error <= tolerance  # NaN fails too
            bad += failed
            print(
                f"{'FAIL' if failed else 'ok  '} {path.stem:28s} {name:28s} {error:9.2e}  (at most {tolerance:.0e})"
            )
    print(f"{len(cases)} cases, {bad} results above tolerance")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
