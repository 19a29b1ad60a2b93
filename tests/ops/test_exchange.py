"""Rows put in the place of others: what lies where afterwards, what is handed out, how bfloat16 is rounded."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.exchange import exchange_rows

pytestmark = pytest.mark.usefixtures("each_backend")


@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 9),
    count=st.integers(0, 40),
    used=st.integers(0, 50),
    kinds=st.sampled_from([("float32", "float32"), ("float64", "float64"), ("float32", "bfloat16")]),
)
def test_new_rows_lie_there_and_old_ones_are_handed_out(seed, width, count, used, kinds):
    torch.manual_seed(seed)
    computed, kept = (getattr(torch, kind) for kind in kinds)
    rows, new = torch.randn(50, width).to(kept), torch.randn(60, width).to(computed)
    place, which = torch.randperm(50)[:count], torch.randint(60, (count,))
    expected = rows.clone()
    expected[place] = new[which].to(kept)
    before = rows.clone()
    gone, held = exchange_rows(rows, place, new, which, used)
    assert torch.equal(rows, expected)
    assert torch.equal(gone, place[place < used])
    assert torch.equal(held, before[gone])


def test_bfloat16_is_rounded_as_torch_does():
    halves = torch.arange(1 << 16, dtype=torch.int32) << 16  # every bfloat16, and what lies around it
    parts = [halves, halves + 1, halves + 0x7FFF, halves + 0x8000, halves + 0x8001, halves + 0xFFFF]
    new = torch.cat(parts).view(torch.float32).view(-1, 64)
    rows = torch.zeros_like(new, dtype=torch.bfloat16)
    exchange_rows(rows, torch.arange(len(new)), new, torch.arange(len(new)), 0)
    expected = new.to(torch.bfloat16)
    assert torch.equal(rows.isnan(), expected.isnan())
    assert torch.equal(rows.nan_to_num(nan=1.5), expected.nan_to_num(nan=1.5))


def test_many_rows_are_shared_out_among_threads():
    rows, new = torch.randn(5000, 3), torch.randn(4000, 3)
    place, which = torch.randperm(5000)[:3000], torch.randperm(4000)[:3000]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        gone, held = exchange_rows(again := rows.clone(), place, new, which, 2500)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(again[place], new[which])
    assert torch.equal(held, rows[gone])
    assert torch.equal(gone, place[place < 2500])
