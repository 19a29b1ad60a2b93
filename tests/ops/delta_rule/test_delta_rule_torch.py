"""The chunked form against the naive one: forward, gradients, final state; and the choice of backend."""

import inspect
import logging

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import fwpkm.ops.delta_rule.dispatch as dispatch
from fwpkm.ops.delta_rule import gated_delta_rule
from fwpkm.ops.delta_rule.release import _UnitInverse
from fwpkm.ops.delta_rule.torch import _running_sum


def make_inputs(seed, T, *, B=2, H=2, Dk=6, Dv=5, strength=1.0, dtype=torch.float64):
    """Decays from none to nearly total; `strength` multiplies all of them."""
    gen = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    q, keys, v = randn(B, T, H, Dk), randn(B, T, H, Dk), randn(B, T, H, Dv)
    g, beta, state = -strength * F.softplus(3 * randn(B, T, H)), randn(B, T, H).sigmoid(), randn(B, H, Dk, Dv)
    return [x.to(dtype).requires_grad_() for x in (q, keys, v, g, beta, state)]


def run(inputs, mask=None, **how):
    """Return output, final state and the gradients of a loss that reads both."""
    q, keys, v, g, beta, state = inputs
    out, final = gated_delta_rule(q, keys, v, g, beta, state=state, mask=mask, **how)
    keep = torch.ones_like(out) if mask is None else mask[..., None, None].to(out)
    loss = (keep * out).sin().sum() + final.cos().sum()
    return out * keep, final, *torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("T", [1, 2, 31, 32, 33, 64, 65, 97, 131])
@pytest.mark.parametrize("arithmetic", ["accurate", "release"])
def test_chunks_agree_with_the_recurrence_forward_backward_and_in_the_final_state(T, arithmetic):
    inputs = make_inputs(T, T)
    for fast, naive in zip(
        run(inputs, backend="torch", arithmetic=arithmetic), run(inputs, backend="naive"), strict=True
    ):
        torch.testing.assert_close(fast, naive, rtol=1e-10, atol=1e-11)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    T=st.integers(1, 70),
    share=st.floats(0, 1),
    arithmetic=st.sampled_from(["accurate", "release"]),
)
def test_padding_anywhere_changes_nothing_for_the_chunks_either(seed, T, share, arithmetic):
    inputs = make_inputs(seed, T)
    mask = torch.rand(2, T, generator=torch.Generator().manual_seed(seed)) < share
    fast = run(inputs, mask, backend="torch", arithmetic=arithmetic)
    naive = run(inputs, mask, backend="naive")
    for a, b in zip(fast, naive, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("strength", [1e-3, 1.0, 30.0, 1e4])
def test_in_float32_the_chunks_err_at_most_twice_as_much_as_the_recurrence(strength):
    inputs = make_inputs(3, 200, Dk=16, Dv=16, strength=strength, dtype=torch.float32)
    oracle = run([x.detach().double().requires_grad_() for x in inputs], backend="naive")
    fast, naive = run(inputs, backend="torch"), run(inputs, backend="naive")
    names = ("output", "state", "dq", "dkeys", "dv", "dg", "dbeta", "dinitial")
    for name, a, b, o in zip(names, fast, naive, oracle, strict=True):
        floor = torch.finfo(torch.float32).eps * o.norm()
        allowed = 2 * max((b.double() - o).norm(), floor)
        assert (a.double() - o).norm() <= allowed, name


def test_in_the_arithmetic_of_the_release_weak_decays_after_strong_ones_lose_accuracy():
    inputs = make_inputs(0, 64, strength=100.0, dtype=torch.float32)
    exact, _ = gated_delta_rule(*[x.double() for x in inputs[:5]], backend="naive")
    errors = [
        (gated_delta_rule(*inputs[:5], backend="torch", arithmetic=a)[0] - exact).norm()
        for a in ("accurate", "release")
    ]
    assert errors[1] > 4 * errors[0]


def inverted_by_autograd(lower):
    """Solve row by row in place, and leave the gradient to autograd."""
    rest = lower.clone()
    for i in range(1, lower.shape[-1]):
        row, above = rest[..., i, :i].clone(), rest[..., :i, :i].clone()
        rest[..., i, :i] = row + (row[..., None] * above).sum(-2)
    return rest + torch.eye(lower.shape[-1], dtype=lower.dtype)


def test_the_inverse_of_the_release_is_one_and_its_gradient_is_autograds_to_the_last_bit():
    gen = torch.Generator().manual_seed(0)
    lower = (0.3 * torch.randn(2, 3, 64, 64, generator=gen)).tril(-1).requires_grad_()
    weight = torch.randn(2, 3, 64, 64, generator=gen)
    ours, autograds = _UnitInverse.apply(lower), inverted_by_autograd(lower)
    assert torch.equal(ours, autograds)
    gradients = [torch.autograd.grad((x * weight).sum(), lower)[0].tril(-1) for x in (ours, autograds)]
    assert torch.equal(*gradients)
    identity = ours.double() @ (torch.eye(64) - lower.double())
    assert (identity - torch.eye(64)).norm() < 1e-5 * ours.norm() * lower.norm()


def test_an_unknown_arithmetic_is_refused():
    with pytest.raises(ValueError, match="must be accurate or release, got 'exact'"):
        inspect.unwrap(gated_delta_rule)(*make_inputs(0, 2)[:5], arithmetic="exact")


def test_no_tokens_return_the_state_as_it_was():
    inputs = make_inputs(0, 0)
    for how in ({"backend": "naive"}, {"backend": "torch"}, {"backend": "torch", "arithmetic": "release"}):
        out, final = gated_delta_rule(*inputs[:5], state=inputs[5], **how)
        assert out.shape == (2, 0, 2, 5)
        assert torch.equal(final, inputs[5])


def test_without_a_state_streams_start_from_zeros():
    inputs = make_inputs(0, 9)
    given_zeros = gated_delta_rule(*inputs[:5], state=torch.zeros_like(inputs[5]))
    for a, b in zip(gated_delta_rule(*inputs[:5]), given_zeros, strict=True):
        assert torch.equal(a, b)


def test_half_precision_keeps_its_state_in_float32():
    inputs = [x.bfloat16() for x in make_inputs(0, 40)]
    out, final = gated_delta_rule(*inputs[:5])
    assert (out.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    exact, _ = gated_delta_rule(*[x.double() for x in inputs[:5]], backend="naive")
    assert (out.double() - exact).norm() < 2 * torch.finfo(torch.bfloat16).eps * exact.norm()


def test_autocast_does_not_reach_into_the_recurrence():
    inputs = [x.float() for x in make_inputs(0, 40)]
    plain = gated_delta_rule(*inputs[:5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gated_delta_rule(*inputs[:5])
    assert torch.equal(plain[0], cast[0])


def test_auto_takes_torch_on_the_cpu_and_says_why(caplog):
    dispatch._announce.cache_clear()
    with caplog.at_level(logging.INFO):
        chosen = dispatch.resolve_backend("auto", torch.device("cpu"), torch.bfloat16)
    assert chosen == "torch"
    assert "need a CUDA device" in caplog.text


def test_a_named_backend_that_cannot_run_is_refused():
    with pytest.raises(RuntimeError, match=r"backend='fla': .*CUDA device.*Use backend='torch'"):
        gated_delta_rule(*make_inputs(0, 2)[:5], backend="fla")


def test_on_cuda_auto_takes_fla_only_where_it_is_installed_and_the_precision_is_half(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    assert dispatch.resolve_backend("auto", cuda, torch.bfloat16) == "torch"
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert dispatch.resolve_backend("auto", cuda, torch.bfloat16) == "fla"
    assert dispatch.resolve_backend("auto", cuda, torch.float32) == "torch"


@pytest.mark.parametrize(
    ("version", "wrong"),
    [
        ("3.3.1", False),
        ("3.4.0", True),
        ("3.6.0+git1", True),
        ("3.7.0", True),
        ("3.7.1", False),
        ("4.0.0", False),
    ],
)
def test_a_compiler_that_makes_wrong_gradients_of_fla_is_not_used_for_them(version, wrong, monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(dispatch, "_triton_version", lambda: version)
    assert dispatch.resolve_backend("auto", cuda, torch.bfloat16) == ("torch" if wrong else "fla")
    if wrong:
        with pytest.raises(
            RuntimeError, match=r"backward pass wrongly for Hopper GPUs .* Triton 3\.7\.1 does not"
        ):
            dispatch.resolve_backend("fla", cuda, torch.bfloat16)
    with torch.no_grad():
        assert dispatch.resolve_backend("fla", cuda, torch.bfloat16) == "fla"


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="must be auto, naive, torch or fla, got 'triton'"):
        # Unwrapped, because the test run's type checker would be faster.
        inspect.unwrap(dispatch.resolve_backend)("triton", torch.device("cpu"), torch.float32)


def test_running_sums_by_a_product_are_those_that_cumsum_makes():
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(_running_sum(x, in_order=True), _running_sum(x, in_order=False))
