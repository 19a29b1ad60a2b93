"""How every test runs: shapes and types checked, uninitialised memory poisoned, random numbers seeded."""

import importlib.util
import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined
if importlib.util.find_spec("beartype"):  # a GPU machine may lack it
    install_import_hook("fwpkm", "beartype.beartype")  # before anything imports fwpkm

settings.register_profile(
    "fwpkm",
    deadline=None,
    derandomize=False,
    max_examples=20,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("fwpkm")

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["torch", "numba"])
def each_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run all tests of a module on every form of the operations that the CPU has."""
    from fwpkm.ops.backend import use_backend

    with use_backend(request.param):
        yield request.param


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fill `torch.empty` with NaN (integers with their maximum), and start from the same random numbers."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Leave no test's default dtype to the next one."""
    torch.set_default_dtype(torch.float32)
