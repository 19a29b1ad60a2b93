"""flash-linear-attention's Gated DeltaNet on a GPU, against the definition: forward, gradients, final state."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F

from fwpkm.ops.backend import interprets_triton
from fwpkm.ops.delta_rule import gated_delta_rule
from fwpkm.ops.delta_rule.naive import gated_delta_rule_naive
from fwpkm.testing.accuracy import assert_all_accurate

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(
        importlib.util.find_spec("fla") is None,
        reason="flash-linear-attention is not installed: pip install 'fwpkm[gpu]'",
    ),
    pytest.mark.skipif(interprets_triton(), reason="interpreted: run with TRITON_INTERPRET=0"),
]
NAMES = ("q", "keys", "v", "g", "beta", "state")


def make_inputs(T, *, B=2, H=3, D=64):
    """Numbers that bfloat16 holds, but for the state, which stays float32."""
    draw = torch.Generator().manual_seed(T)
    q, keys, v, g, beta = (torch.randn(B, T, H, *rest, generator=draw) for rest in ((D,), (D,), (D,), (), ()))
    given = (q, keys, v, -F.softplus(g), beta.sigmoid())
    return [*(x.bfloat16() for x in given), torch.randn(B, H, D, D, generator=draw)]


def results(rule, inputs, dtypes):
    inputs = [x.cuda().to(dtype).requires_grad_() for x, dtype in zip(inputs, dtypes, strict=True)]
    out, final = rule(*inputs)
    grads = torch.autograd.grad(out.sin().sum() + final.cos().sum(), inputs)
    named = {f"d {name}": x for name, x in zip(NAMES, grads, strict=True)}
    return {"out": out.detach(), "final": final.detach(), **named}


def by_fla(q, keys, v, g, beta, state):
    return gated_delta_rule(q, keys, v, g, beta, state=state, backend="fla")


def by_definition(*inputs):
    mask = torch.ones(inputs[0].shape[:2], dtype=torch.bool, device="cuda")
    return gated_delta_rule_naive(*inputs, mask)


@pytest.mark.parametrize("T", [1, 63, 64, 200])
def test_fla_errs_at_most_twice_as_much_as_the_definition_in_bfloat16(T):
    inputs = make_inputs(T)
    fast = results(by_fla, inputs, [torch.bfloat16] * 5 + [torch.float32])
    plain = results(by_definition, inputs, [torch.bfloat16] * 6)
    exact = results(by_definition, inputs, [torch.float64] * 6)
    assert_all_accurate(fast, {name: x.to(fast[name].dtype) for name, x in plain.items()}, exact)


def test_fla_answers_single_tokens_as_the_definition_does():
    inputs = make_inputs(1)
    with torch.no_grad():
        q, keys, v, g, beta, state = (x.cuda() for x in inputs)
        out, final = by_fla(q, keys, v, g, beta, state)
        exact = by_definition(*(x.double() for x in (q, keys, v, g, beta, state)))
    torch.testing.assert_close((out.double(), final.double()), exact, rtol=2**-6, atol=2**-6)
