"""The compiled short convolution against sums of shifted copies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.backend import use_backend
from fwpkm.ops.short_conv import short_conv

pytest.importorskip("numba")


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def with_gradients(full, weight, wanted):
    y = short_conv(full, weight)
    return y, *torch.autograd.grad((y.sin() * wanted).sum(), (full, weight))


@given(
    seed=st.integers(0, 10**6),
    B=st.integers(1, 3),
    T=st.integers(0, 9),
    D=st.integers(1, 11),
    K=st.integers(1, 6),
)
def test_values_and_gradients_equal_the_shifted_sums(seed, B, T, D, K):
    full, weight, wanted = draw(seed, B, T + K - 1, D), draw(seed + 1, D, K), draw(seed + 2, B, T, D).detach()
    fast = with_gradients(full, weight, wanted)
    with use_backend("torch"):
        slow = with_gradients(full, weight, wanted)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_definition_itself():
    full, weight = draw(0, 1, 6, 2), draw(1, 2, 3)
    with use_backend("torch"):
        y = short_conv(full, weight)
    for t in range(4):
        torch.testing.assert_close(y[0, t], sum(weight[:, i] * full[0, t + i] for i in range(3)))
