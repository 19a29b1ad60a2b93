"""Padding moved behind the tokens and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.layers.padding import packing_of


@given(
    rows=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=3),
    behind=st.booleans(),
)
def test_tokens_come_first_in_order_and_go_back(rows, behind):
    mask = torch.tensor([sorted(row, reverse=True) if behind else row for row in rows])
    x = torch.randn(*mask.shape, 2)
    x[~mask] = torch.nan
    packing = packing_of(mask)
    if bool(mask.all()):
        assert packing is None
        return
    packed = packing.pack(x)
    for b, own in enumerate(mask):
        count = int(own.sum())
        assert int(packing.lengths[b]) == count
        assert torch.equal(packed[b, :count], x[b, own])
        assert not packed[b, count:].any()
    assert torch.equal(packing.unpack(packed), x.nan_to_num(0))
    if behind:
        assert packing.order is None
