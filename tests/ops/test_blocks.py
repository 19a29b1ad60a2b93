"""Freed memory stays with the process, so that the next step need not have it mapped anew."""

import os
import subprocess
import sys

import pytest

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
