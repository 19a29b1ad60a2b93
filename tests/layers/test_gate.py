"""What surrounds a memory: the short way to the gate gives what its modules give, and steps aside for who uses them."""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

from fwpkm.ops import units
from fwpkm.testing.inputs import make_hidden, make_layer

pytest.importorskip("numba")


class Widened(nn.Linear):
    """A projection that somebody put in the gate's place."""

    def forward(self, x):
        return super().forward(x) + 1.0


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


def gates_and_gradients(layer, x):
    _, _, gate = layer.project(x)
    leaves = [x, *(p for n, p in layer.named_parameters() if n.startswith("gate"))]
    return gate, torch.autograd.grad(gate.sin().sum(), leaves)


@pytest.fixture
def short_ways(monkeypatch):
    """Count the calls of the short way."""
    calls, fast = [], units.scaled_units_and_dots
    monkeypatch.setattr(units, "scaled_units_and_dots", lambda *a: (calls.append(1), fast(*a))[1])
    return calls


@pytest.mark.parametrize("changes", [{}, {"gate_logits": 3}, {"bias": False}], ids=str)
def test_gates_by_the_short_way_equal_those_of_the_modules(changes, short_ways):
    layer = make_layer(1, **changes)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    x = make_hidden(layer, 2, 9).requires_grad_()
    fast, fast_grads = gates_and_gradients(layer, x)
    assert len(short_ways) == 1
    logits = layer.gate_proj(layer.gate_norm(x)).mean(-1)
    torch.testing.assert_close(fast, logits.sigmoid())
    seen = []
    layer.gate_proj.register_forward_hook(lambda module, args, out: seen.append(out))
    slow, slow_grads = gates_and_gradients(layer, x)
    assert len(short_ways) == 1
    torch.testing.assert_close(seen[0].mean(-1), logits)
    for a, b in zip((fast, *fast_grads), (slow, *slow_grads), strict=True):
        torch.testing.assert_close(a, b)


def test_hooks_of_any_kind_on_the_gates_projection_are_called(short_ways):
    for kind in ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"):
        layer, seen = make_layer(2), []
        getattr(layer.gate_proj, f"register_{kind}")(lambda *args, seen=seen: seen.append(1))
        gates_and_gradients(layer, make_hidden(layer, 2, 9).requires_grad_())
        assert seen, kind
    assert not short_ways


def test_what_stands_in_for_the_gates_projection_is_used(short_ways):
    layer = make_layer(3)
    x = make_hidden(layer, 2, 9)
    plain = layer.gate_proj(layer.gate_norm(x)).mean(-1)
    other = Widened(layer.gate_proj.in_features, layer.gate_proj.out_features).to(x.dtype)
    other.load_state_dict(layer.gate_proj.state_dict())
    first, layer.gate_proj = layer.gate_proj, other
    torch.testing.assert_close(layer.project(x)[2], (plain + 1).sigmoid())
    layer.gate_proj = first
    parametrize.register_parametrization(layer.gate_proj, "weight", Twice())
    bias = first.bias.mean()
    torch.testing.assert_close(layer.project(x)[2], (2 * (plain - bias) + bias).sigmoid())
    assert not short_ways


def test_hooks_on_all_modules_and_forwards_of_somebody_elses_are_called(short_ways):
    layer, seen = make_layer(5), []
    x = make_hidden(layer, 2, 9)
    handle = register_module_forward_hook(lambda module, args, out: seen.append(module))
    try:
        layer.project(x)
    finally:
        handle.remove()
    assert layer.gate_proj in seen
    plain = layer.gate_proj.forward
    layer.gate_proj.forward = lambda x: plain(x) + 1
    logits = layer.gate_proj(layer.gate_norm(x)).mean(-1)
    torch.testing.assert_close(layer.project(x)[2], logits.sigmoid())
    assert not short_ways


def test_under_autocast_the_gates_projection_is_narrow_as_ever(short_ways):
    layer = make_layer(4, dtype=torch.float32)
    x = make_hidden(layer, 2, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gate = layer.project(x)[2]
        logits = layer.gate_proj(layer.gate_norm(x)).mean(-1)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(gate, logits.float().sigmoid(), rtol=0, atol=1e-2)
    assert not short_ways
