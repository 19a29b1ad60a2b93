"""The Triton kernels, compiled for GPUs that need not be there: what they take of one is bounded."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install 'fwpkm[gpu]'"
)
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}
"""What one block may have of a multiprocessor (CUDA programming guide, compute capabilities 8.0 and 9.0)."""


@pytest.mark.parametrize("arch", [80, 90])
def test_every_kernel_fits_the_registers_without_spills(arch):
    command = [sys.executable, "-m", "fwpkm.bench.kernels_triton", f"{arch}:fp32"]
    printed = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "0"}, capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert len({row["kernel"] for row in rows}) == len(rows) == 15
    for row in rows:
        assert row["spilled_bytes"] == 0, row
        assert row["registers"] <= 255, row
        assert row["shared_bytes"] <= SHARED_BYTES[arch], row
        assert row["registers"] * 32 * row["warps"] <= 65536, row
