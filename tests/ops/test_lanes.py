"""Vectors of compiled loops, lane by lane against NumPy."""

import numpy as np
import pytest

pytest.importorskip("numba")

from fwpkm.ops.jit import jit
from fwpkm.ops.lanes import (
    VECTOR_BYTES,
    bits_at_least,
    load,
    lowest_bit,
    new_whole,
    num_lanes,
    spread,
    store,
    sum_of,
    times_plus,
    where_larger,
    where_nan,
)
from fwpkm.ops.pointers import pointer_to


@jit
def combine(x, y, number, out):
    a, b, to, lanes = load(pointer_to(x, 1), 0), load(pointer_to(y, 0), 1), pointer_to(out, 0), num_lanes(x)
    store(times_plus(a, b, spread(number, to)), to, 0)
    store(sum_of(a, b), to, lanes)
    store(where_larger(a, b, a, b), to, 2 * lanes)
    store(where_nan(a, b, a), to, 3 * lanes)
    return bits_at_least(a, b)


@jit
def name_larger(x, y, names):
    """Choose whole numbers by a comparison of others."""
    out = pointer_to(names, 0)
    store(
        where_larger(load(pointer_to(x, 0), 0), load(pointer_to(y, 0), 0), spread(7, out), load(out, 0)),
        out,
        0,
    )


@jit
def room_for_whole(like, length):
    return new_whole(like, length)


@jit
def bits_of(mask):
    found = []
    while mask != 0:
        found.append(lowest_bit(mask))
        mask &= mask - np.uint64(1)
    return found


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_every_lane_is_computed_by_itself(dtype):
    draw, lanes = np.random.default_rng(), VECTOR_BYTES // np.dtype(dtype).itemsize
    x, y = draw.standard_normal((2, lanes + 1)).astype(dtype)
    x[3], y[5], x[7], y[8] = np.nan, np.nan, np.inf, x[8]
    out = np.empty((4, lanes), dtype=dtype)
    mask = combine(x, y, np.dtype(dtype).type(0.5), out)
    a, b = x[1:], y[1:]
    np.testing.assert_allclose(out[0], a * b + 0.5, rtol=4 * np.finfo(dtype).eps, atol=1e-6)
    np.testing.assert_array_equal(out[1], a + b)
    np.testing.assert_array_equal(out[2], np.where(a > b, a, b))
    np.testing.assert_array_equal(out[3], np.where(np.isnan(a), b, a))
    assert bits_of(np.uint64(mask)) == np.flatnonzero(a >= b).tolist()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_whole_numbers_have_as_many_lanes(dtype):
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    x, y = np.random.default_rng().standard_normal((2, lanes)).astype(dtype)
    names = room_for_whole(x, 2)
    assert names.shape == (2, lanes)
    names[:] = 3
    name_larger(x, y, names)
    np.testing.assert_array_equal(names[0], np.where(x > y, 7, 3))
    assert (names[1] == 3).all()
