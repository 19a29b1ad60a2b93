"""The kernels on both of their forms: sums in any order, and in a fixed one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fwpkm.ops.backend import use_backend, why_no_triton

sys.path.insert(0, str(Path(__file__).parent))  # for triton_cases


@pytest.fixture
def triton() -> Iterator[None]:
    """Run the test's operations as Triton kernels: interpreted where the tensors are on the CPU."""
    missing = why_no_triton()
    if missing:
        pytest.skip(missing)
    with use_backend("triton"):
        yield


@pytest.fixture(params=["any order", "fixed order"])
def order(request: pytest.FixtureRequest, triton: None) -> str:
    """Choose how sums into shared rows are made; conftest.py of all tests has asked for the fixed order."""
    torch.use_deterministic_algorithms(request.param == "fixed order")
    return request.param
