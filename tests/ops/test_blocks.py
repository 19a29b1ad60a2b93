"""Freed memory stays with the process, so that the next step need not have it mapped anew."""

import os
import subprocess
import sys

import pytest
import torch

from fwpkm.ops import blocks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of glibc's malloc")

_ROUNDS = """
import resource
import torch
from fwpkm.ops.blocks import keep_freed_memory

def faults_of_a_round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.zeros(2 << 20) for _ in range(25)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(*[faults_of_a_round() for _ in range(5)])
"""
_PAGES = 25 * (8 << 20) // 4096
"""Of a round."""


def faults(**settings: str) -> list[int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _ROUNDS],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


def test_what_a_step_frees_is_not_mapped_anew_by_the_next() -> None:
    first, *later = faults()
    assert first > 0
    assert min(later) < _PAGES // 100


def test_settings_of_the_user_are_left_alone() -> None:
    assert min(faults(MALLOC_TRIM_THRESHOLD_="1048576")) > _PAGES // 2


def test_free_blocks_are_bounded_and_the_bound_can_be_another_for_a_while() -> None:
    like, size = torch.empty(0), 2 << 20

    def free_after(count: int) -> int:
        held = [blocks.large_empty((size // 4,), like) for _ in range(count)]
        del held
        return sum(block.nbytes for block in blocks._free)

    blocks.release_blocks()
    with blocks.keeping_blocks(3 * size):
        assert free_after(2) == 2 * size
        assert free_after(5) == 3 * size
        with blocks.keeping_blocks(8 * size):
            assert free_after(5) == 5 * size
        assert sum(block.nbytes for block in blocks._free) == 3 * size
    assert free_after(5) == 5 * size
    blocks.release_blocks()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_blocks_begin_a_page_so_that_rows_lie_in_whole_lines(dtype) -> None:
    like = torch.empty(0, dtype=dtype)
    for _ in range(2):  # a new one, and one that was used before
        held = [blocks.large_empty((rows, 512), like) for rows in (2048, 3000, 4097)]
        assert all(x.data_ptr() % 4096 == 0 for x in held)
        for number, x in enumerate(held):
            x.fill_(number)
        assert [x.unique().tolist() for x in held] == [[0], [1], [2]]
