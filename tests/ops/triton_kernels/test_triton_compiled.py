"""The Triton kernels, compiled for GPUs that need not be there: what they take of one is bounded."""

import json
import os
import platform
import subprocess
import sys

import pytest
from triton_cases import triton_version

from fwpkm.ops.backend import why_no_triton

needs_triton = pytest.mark.skipif(why_no_triton() is not None, reason=str(why_no_triton()))
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}
"""What one block may have of a multiprocessor (CUDA programming guide, compute capabilities 8.0 and 9.0)."""


CASES = {
    "80:fp32": 26,
    "90:fp32": 26,
    "80:bf16": 26,
    "90:bf16": 26,
    "80:bf16rows": 4,
    "90:bf16rows": 4,
    "80:fp32:32:1": 9,
    "80:bf16:32:4": 9,
    "90:fp32:32:4": 9,
}
"""Compute capability, what is in which precision, slots per head and heads; and how many kernels that makes."""
SPILLED_BYTES = {"80:fp32:32:1": 8}
"""At most, by Triton 3.9; where nothing is said, none."""
SPILLED_BYTES_BEFORE = 48
"""At most, by Triton before 3.9."""


@pytest.mark.skipif(
    not os.environ.get("CI") or (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="elsewhere Triton may be missing",
)
def test_continuous_integration_skips_no_test_of_the_kernels():
    assert why_no_triton() is None


@needs_triton
@pytest.mark.parametrize(("case", "num_kernels"), CASES.items())
def test_every_kernel_fits_the_registers(case, num_kernels):
    command = [sys.executable, "-m", "fwpkm.bench.kernels_triton", case]
    printed = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "0"}, capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    arch = int(case.split(":")[0])
    spilled = SPILLED_BYTES.get(case, 0) if triton_version() >= (3, 9) else SPILLED_BYTES_BEFORE
    assert len({row["kernel"] for row in rows}) == len(rows) == num_kernels
    for row in rows:
        assert row["spilled_bytes"] <= spilled, row
        assert row["registers"] <= 255, row
        assert row["shared_bytes"] <= SHARED_BYTES[arch], row
        assert row["registers"] * 32 * row["warps"] <= 65536, row
