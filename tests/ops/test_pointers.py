"""Pointers into arrays, and what is stored past the cache."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from numba.core.errors import TypingError

from fwpkm.ops.jit import jit
from fwpkm.ops.pointers import (
    LINE,
    address_of,
    copy_past_cache,
    finish_stores,
    pointer_at,
    pointer_to,
)
from fwpkm.ops.rows import add_row, inner


@jit
def add_by_pointers(c, rows, source, goal):
    """rows[goal] += c rows[source], one found by its place and one by its address."""
    width = rows.shape[1]
    x = pointer_at(rows, address_of(rows, source * width))
    add_row(c, x, pointer_to(rows, goal * width), width)
    return inner(x, pointer_to(rows, goal * width), width)


@jit
def copy_lines(row, rows, goal):
    width = rows.shape[1]
    copy_past_cache(row, pointer_to(rows, goal * width), width)
    finish_stores()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 7, 64])
def test_a_pointer_leads_to_the_row_it_was_made_for(dtype, width):
    rows = torch.randn(5, width, dtype=dtype)
    expected = rows.clone()
    expected[4] += 0.5 * expected[1]
    product = add_by_pointers(rows.numpy().dtype.type(0.5), rows.numpy(), 1, 4)
    torch.testing.assert_close(rows, expected)
    assert product == pytest.approx(float(expected[1] @ expected[4]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lines", [1, 2, 9])
def test_lines_are_copied_whole_and_their_neighbours_are_not(dtype, lines):
    width = lines * LINE // dtype.itemsize
    rows = torch.randn(4, width, dtype=dtype)
    assert rows.data_ptr() % LINE == 0
    expected, room = rows.clone(), np.random.default_rng(0).standard_normal(width + 1)
    row = room.astype(rows.numpy().dtype)[1:]  # what is copied may lie anywhere
    expected[2] = torch.from_numpy(row)
    copy_lines(row, rows.numpy(), 2)
    assert torch.equal(rows, expected)


@pytest.mark.parametrize("rows", [np.zeros((4, 8))[:, ::2], np.zeros((4, 8)).T])
def test_arrays_that_are_not_contiguous_are_refused(rows):
    with pytest.raises(TypingError, match="contiguous arrays only"):
        add_by_pointers(1.0, rows, 0, 1)
