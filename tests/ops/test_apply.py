"""Autograd functions called without their context."""

import pytest
import torch
from torch.autograd import forward_ad

from fwpkm.ops.apply import apply


class Twice(torch.autograd.Function):
    """Tells whether autograd was asked."""

    contexts = 0

    @staticmethod
    def forward(x, factor):
        return x * factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        Twice.contexts += 1
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx, g):
        return g * ctx.factor, None


@pytest.fixture(autouse=True)
def no_contexts_yet(monkeypatch):
    monkeypatch.setattr(Twice, "contexts", 0)


def test_gradients_flow():
    x = torch.randn(3, requires_grad=True)
    y = apply(Twice, x, 2.0)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.full((3,), 2.0))
    assert Twice.contexts == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_the_forward_runs(mode):
    x = torch.randn(3, requires_grad=True)
    with mode():
        y = apply(Twice, x, 2.0)
    assert torch.equal(y, 2 * x.detach())
    assert not y.requires_grad
    assert Twice.contexts == 0


def test_forward_mode_gradients_are_refused_without_gradients_too():
    with torch.no_grad(), forward_ad.dual_level():
        x = forward_ad.make_dual(torch.randn(3), torch.ones(3))
        with pytest.raises(NotImplementedError, match="jvp"):
            apply(Twice, x, 2.0)
