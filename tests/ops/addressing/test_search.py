"""The compiled search of many tokens at once against sorting everything."""

import numpy as np
import pytest

pytest.importorskip("numba")

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fwpkm.ops.addressing.constants import IDW_EPS
from fwpkm.ops.addressing.search import find_best, new_found, new_room
from fwpkm.ops.jit import jit
from fwpkm.ops.lanes import VECTOR_BYTES


@jit
def search(q, keys, squares, k, idw):
    """Search for tokens q [M, 2 d] among keys [2, n, d], behind a token and a sub-key that are not asked for."""
    (_, width), (_, n, d), room, found = (
        q.shape,
        keys.shape,
        new_room(q, keys.shape[1] - 1, keys.shape[2], k),
        new_found(q, k),
    )
    find_best(q, width, width, d, q.shape[0] - 1, keys, squares, 1, n, idw, room, found)
    return found


def draw_tokens(seed, tokens, n, d, dtype, *, whole=False):
    draw = np.random.default_rng(seed)
    numbers = (
        draw.integers(-2, 3, (tokens + 1, 2 * d)) if whole else draw.standard_normal((tokens + 1, 2 * d))
    )
    keys = draw.integers(-2, 3, (2, n + 1, d)) if whole else draw.standard_normal((2, n + 1, d))
    return numbers.astype(dtype), keys.astype(dtype)


def scores_of(q, keys, *, idw):
    """Score tokens [M, 2 d] against sub-keys [2, n, d] in float64, [2, M, n]."""
    d = keys.shape[2]
    x, keys = np.stack((q[:, :d], q[:, d:])).astype("f8"), keys.astype("f8")
    if not idw:
        return np.einsum("hmd,hnd->hmn", x, keys)
    return -np.log(IDW_EPS + np.square(x[:, :, None] - keys[:, None]).sum(-1))


def found_by(q, keys, k, *, idw):
    squares = np.square(keys).sum(-1) if idw else np.zeros_like(keys[..., 0])
    tokens = q.shape[0] - 1
    return [x[..., :tokens] for x in search(q, keys, squares, k, idw)]


def lanes_of(dtype):
    return VECTOR_BYTES // np.dtype(dtype).itemsize


shapes = st.tuples(st.integers(1, 70), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), shapes, st.booleans(), st.sampled_from(["f4", "f8"]))
@example(1, (512, 64, 1.0, 0.015), True, "f4")
@example(2, (512, 16, 1.0, 0.0625), True, "f4")
@example(3, (33, 5, 0.0, 1.0), False, "f8")
def test_the_best_are_those_that_sorting_finds(seed, shape, idw, dtype):
    n, d, of_lanes, of_keys = shape
    tokens, k = max(1, round(of_lanes * lanes_of(dtype))), max(1, round(of_keys * n))
    q, keys = draw_tokens(seed, tokens, n, d, dtype)
    scores, strengths, ids, best, pair = found_by(q, keys, k, idw=idw)
    exact = scores_of(q[1:], keys[:, 1:], idw=idw)
    close = {"rtol": 1e-3, "atol": 1e-3} if dtype == "f4" else {"rtol": 1e-7, "atol": 1e-9}
    np.testing.assert_allclose(scores.transpose(0, 2, 1), -np.sort(-exact, axis=-1)[..., :k], **close)
    at = np.take_along_axis(exact, ids.transpose(0, 2, 1).astype("i8"), axis=-1)
    np.testing.assert_allclose(at, scores.transpose(0, 2, 1), **close)
    shares = strengths / strengths.sum(1, keepdims=True)
    wanted = np.exp(scores - scores[:, :1])
    np.testing.assert_allclose(shares, wanted / wanted.sum(1, keepdims=True), rtol=1e-3)
    sums = (exact[0][:, :, None] + exact[1][:, None, :]).reshape(tokens, -1)
    np.testing.assert_allclose(best.T, -np.sort(-sums, axis=-1)[:, :k], **close)
    for t in range(tokens):
        assert len(set(ids[0, :, t])) == len(set(ids[1, :, t])) == len(set(pair[:, t])) == k
    rows, columns = (
        np.take_along_axis(s, p.astype("i8"), 0) for s, p in zip(scores, (pair // k, pair % k), strict=True)
    )
    np.testing.assert_array_equal(rows + columns, best)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("full", [False, True])
def test_equal_scores_stay_in_the_order_of_the_sub_keys(dtype, full):
    tokens, n, k = lanes_of(dtype) if full else 1, 45, 6
    q, keys = draw_tokens(4, tokens, n, 2, dtype, whole=True)
    _, _, ids, _, _ = found_by(q, keys, k, idw=False)
    exact = scores_of(q[1:], keys[:, 1:], idw=False)
    for half in range(2):
        for t in range(tokens):
            own = exact[half, t]
            assert own[ids[half, :, t]].tolist() == sorted(own, reverse=True)[:k]
            if full:
                assert ids[half, :, t].tolist() == sorted(range(n), key=lambda c, own=own: (-own[c], c))[:k]


@pytest.mark.parametrize("tokens", [1, 10, 11, 31, 32])
def test_what_a_token_finds_does_not_depend_on_those_beside_it(tokens):
    q, keys = draw_tokens(5, tokens, 200, 24, "f4")
    alone = found_by(q, keys, 8, idw=True)
    others = q.copy()
    others[2:] = 1e3 * np.random.default_rng(6).standard_normal(others[2:].shape)
    for x, y in zip(alone, found_by(others, keys, 8, idw=True), strict=True):
        np.testing.assert_array_equal(x[..., 0], y[..., 0])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("bad", ["query", "sub-key"])
def test_a_nan_spoils_whom_it_meets_and_nobody_else(dtype, bad):
    tokens = lanes_of(dtype)
    q, keys = draw_tokens(7, tokens, 64, 3, dtype)
    if bad == "query":
        q[4, 1] = np.nan
    else:
        keys[0, 40, 1] = np.nan
    scores, _, ids, best, _ = found_by(q, keys, 8, idw=True)
    spoilt = np.array([bad == "sub-key" or t == 3 for t in range(tokens)])
    np.testing.assert_array_equal(np.isnan(scores[0]).all(0), spoilt)
    np.testing.assert_array_equal(np.isnan(best).all(0), spoilt)
    assert np.isfinite(scores[1]).all()
    assert ((ids >= 0) & (ids < 64)).all()


def test_far_queries_have_finite_scores_and_no_sub_key_twice():
    q, keys = draw_tokens(8, 32, 64, 3, "f4")
    q[2:] *= 1e15
    scores, _, ids, _, _ = found_by(q, keys, 8, idw=True)
    assert np.isfinite(scores).all()
    assert all(len(set(ids[half, :, t])) == 8 for half in range(2) for t in range(32))
