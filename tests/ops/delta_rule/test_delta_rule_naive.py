"""The definition tier: the naive recurrence against one gradient step a token, in float64."""

import pytest
import torch

from fwpkm.ops.delta_rule.naive import gated_delta_rule_naive


def make_inputs(seed, B=2, T=7, H=3, Dk=5, Dv=4):
    gen = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    q, keys, v = randn(B, T, H, Dk), randn(B, T, H, Dk), randn(B, T, H, Dv)
    g, beta, state = -randn(B, T, H).exp(), randn(B, T, H).sigmoid(), randn(B, H, Dk, Dv)
    return q, keys, v, g, beta, state


@pytest.mark.parametrize("seed", range(3))
def test_each_token_fades_the_state_and_takes_one_gradient_step_on_its_own_error(seed):
    q, keys, v, g, beta, state = make_inputs(seed)
    mask = torch.ones(2, 7, dtype=torch.bool)
    out, final = gated_delta_rule_naive(q, keys, v, g, beta, state, mask)
    for b in range(2):
        for h in range(3):
            S = state[b, h]
            for t in range(7):
                key = keys[b, t, h] / (keys[b, t, h].pow(2).sum() + 1e-6).sqrt()
                query = q[b, t, h] / (q[b, t, h].pow(2).sum() + 1e-6).sqrt() / 5**0.5
                faded = (g[b, t, h].exp() * S).requires_grad_()
                loss = 0.5 * (key @ faded - v[b, t, h]).pow(2).sum()
                (grad,) = torch.autograd.grad(loss, faded)
                S = (faded - beta[b, t, h] * grad).detach()
                torch.testing.assert_close(out[b, t, h], query @ S, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(final[b, h], S, rtol=1e-12, atol=1e-12)


def test_with_beta_one_the_last_value_is_read_back_exactly():
    _, keys, v, g, beta, state = make_inputs(0)
    mask = torch.ones(2, 7, dtype=torch.bool)
    out, _ = gated_delta_rule_naive(keys * 1e3, keys * 1e3, v, g, torch.ones_like(beta), state, mask)
    torch.testing.assert_close(out * 5**0.5, v, rtol=1e-9, atol=1e-9)


def test_a_masked_token_leaves_the_state_alone():
    q, keys, v, g, beta, state = make_inputs(1)
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[0, 3] = True
    _, final = gated_delta_rule_naive(q, keys, v, g, beta, state, mask)
    assert torch.equal(final[1], state[1])
    assert not torch.equal(final[0], state[0])
