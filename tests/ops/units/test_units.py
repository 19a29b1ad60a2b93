"""Normalised rows in compiled loops against their formulas: values and gradients, on odd sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.layers.frame import normalise
from fwpkm.layers.norm import RMSNorm
from fwpkm.layers.norm import scaled_units as spelt_out
from fwpkm.ops import units
from fwpkm.ops.backend import use_backend

pytest.importorskip("numba")

sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 19))


def draw(shape, seed, *, like_rows=False):
    generator = torch.Generator().manual_seed(seed)
    shape = shape[:-1] if like_rows else shape
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def assert_alike(fast, slow, leaves):
    """Compare what two forms return, and the gradients of a smooth loss of it."""
    wanted = [torch.randn_like(y) for y in slow]
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    grads = [
        torch.autograd.grad(sum((y.sin() * g).sum() for y, g in zip(ys, wanted, strict=True)), leaves)
        for ys in (fast, slow)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@given(shape=sizes, seed=st.integers(0, 10**6), count=st.integers(1, 3))
def test_scaled_units_equal_the_formula(shape, seed, count):
    x, weights = draw(shape, seed), [draw(shape[-1:], seed + 1 + i) for i in range(count)]
    assert units.can_normalise(x, *weights)
    with use_backend("torch"):
        slow = spelt_out(x, 1e-3, *weights)
    assert_alike(units.scaled_units(x, 1e-3, *weights), slow, [x, *weights])


@given(shape=sizes, seed=st.integers(0, 10**6), count=st.integers(0, 2))
def test_products_of_units_with_a_vector_equal_the_formula(shape, seed, count):
    x, vector, *weights = draw(shape, seed), *(draw(shape[-1:], seed + 1 + i) for i in range(count + 1))
    with use_backend("torch"):
        unit, *slow = spelt_out(x, 1e-3, torch.zeros_like(vector), *weights)
    fast = units.scaled_units_and_dots(x, 1e-3, vector, *weights)
    assert_alike(fast, [*slow, unit @ vector], [x, vector, *weights])


@pytest.mark.parametrize("kind", ["l2", "zscore"])
@given(shape=sizes, seed=st.integers(0, 10**6))
def test_normalised_vectors_equal_the_formula(kind, shape, seed):
    x = draw(shape, seed)
    with use_backend("torch"):
        slow = normalise(x, kind)
    assert_alike([units.normalised(x, kind)], [slow], [x])


@given(shape=sizes, seed=st.integers(0, 10**6), gated=st.booleans())
def test_mixtures_equal_the_formula(shape, seed, gated):
    v_hat, v, weight = draw(shape, seed), draw(shape, seed + 1), draw(shape[-1:], seed + 2)
    gate = draw(shape, seed + 3, like_rows=True) if gated else None
    mixed = v_hat + v if gate is None else v + gate[..., None] * (v_hat - v)
    with use_backend("torch"):
        (slow,) = spelt_out(mixed, 1e-3, weight)
    leaves = [v_hat, v, weight] + ([] if gate is None else [gate])
    assert_alike([units.mixed_units(v_hat, v, gate, 1e-3, weight)], [slow], leaves)


@pytest.mark.parametrize("kind", ["l2", "zscore"])
def test_constant_vectors_have_finite_gradients(kind):
    x = torch.full((2, 5), 3.0, requires_grad=True)
    (grad,) = torch.autograd.grad(units.normalised(x, kind).sum(), x)
    assert grad.isfinite().all()


def test_only_what_is_asked_for_gets_a_gradient():
    x, weight, other = draw((2, 3, 4), 0), draw((4,), 1), draw((4,), 2)
    first, _ = units.scaled_units(x, 1e-3, weight, other)
    dx, d_other = torch.autograd.grad(first.sum(), (x, other), allow_unused=True)
    assert dx.isfinite().all()
    assert d_other is None
    _, dots = units.scaled_units_and_dots(x, 1e-3, other, weight)
    alone, d_other, d_weight = torch.autograd.grad(dots.sum(), (x, other, weight), allow_unused=True)
    assert alone.isfinite().all()
    assert d_other.isfinite().all()
    assert d_weight is None


def test_a_vector_may_be_a_weight_too():
    x, vector = draw((2, 3, 4), 0), draw((4,), 1)
    fast = units.scaled_units_and_dots(x, 1e-3, vector, vector)
    with use_backend("torch"):
        unit, slow = spelt_out(x, 1e-3, torch.zeros_like(vector), vector)
    assert_alike(fast, [slow, unit @ vector], [x, vector])


def test_views_and_mixed_precisions_are_dealt_with():
    x = torch.randn(3, 8, 5).transpose(1, 2)
    weight = torch.randn(8)
    with use_backend("torch"):
        (slow,) = spelt_out(x, 1e-3, weight)
    torch.testing.assert_close(units.scaled_units(x, 1e-3, weight)[0], slow)
    assert not units.can_normalise(x, weight.double())
    assert not units.can_normalise(x.to(torch.bfloat16))


def test_half_precision_is_widened_before_a_named_backend_is_asked():
    x, norm = torch.randn(2, 3, 7).to(torch.bfloat16), RMSNorm(7).to(torch.bfloat16)
    with use_backend("numba"):
        got = norm(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), RMSNorm(7)(x.float()), rtol=1e-2, atol=1e-2)
