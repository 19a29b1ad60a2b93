"""Rows put in their places: what lies where afterwards, and how bfloat16 is rounded."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.put import put_rows

pytestmark = pytest.mark.usefixtures("each_backend")


@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 9),
    count=st.integers(0, 40),
    kinds=st.sampled_from([("float32", "float32"), ("float64", "float64"), ("float32", "bfloat16")]),
)
def test_new_rows_lie_where_they_are_put(seed, width, count, kinds):
    torch.manual_seed(seed)
    computed, kept = (getattr(torch, kind) for kind in kinds)
    rows, new = torch.randn(50, width).to(kept), torch.randn(60, width).to(computed)
    place, which = torch.randperm(50)[:count], torch.randint(60, (count,))
    expected = rows.clone()
    expected[place] = new[which].to(kept)
    put_rows(rows, place, new, which)
    assert torch.equal(rows, expected)


def test_bfloat16_is_rounded_as_torch_does():
    halves = torch.arange(1 << 16, dtype=torch.int32) << 16  # every bfloat16, and what lies around it
    parts = [halves, halves + 1, halves + 0x7FFF, halves + 0x8000, halves + 0x8001, halves + 0xFFFF]
    new = torch.cat(parts).view(torch.float32).view(-1, 64)
    rows = torch.zeros_like(new, dtype=torch.bfloat16)
    put_rows(rows, torch.arange(len(new)), new, torch.arange(len(new)))
    expected = new.to(torch.bfloat16)
    assert torch.equal(rows.isnan(), expected.isnan())
    assert torch.equal(rows.nan_to_num(nan=1.5), expected.nan_to_num(nan=1.5))


def test_many_rows_are_shared_out_among_threads():
    rows, new = torch.randn(5000, 3), torch.randn(4000, 3)
    place, which = torch.randperm(5000)[:3000], torch.randperm(4000)[:3000]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        put_rows(again := rows.clone(), place, new, which)
    finally:
        torch.set_num_threads(threads)
    rows[place] = new[which]
    assert torch.equal(again, rows)
