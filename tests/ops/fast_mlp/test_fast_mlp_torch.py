"""The fast network's closed-form gradients and step against autograd."""

import operator

import pytest
import torch

from fwpkm.ops.fast_mlp import FastMLP, FastMLPOptions, activate, answer, gradients, regression_step
from fwpkm.ops.fast_mlp.naive import answer_naive, fast_mlp_naive
from fwpkm.state import iter_tensors

F, Din, Dout, M = 5, 3, 4, 6


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def make_mlp(*lead, biases=True):
    bias = {"gate_bias": draw(*lead, F, seed=4), "up_bias": draw(*lead, F, seed=5)}
    bias |= {"down_bias": draw(*lead, Dout, seed=6)}
    return FastMLP(
        gate=draw(*lead, F, Din, seed=1),
        up=draw(*lead, F, Din, seed=2),
        down=draw(*lead, Dout, F, seed=3),
        **(bias if biases else {}),
    )


@pytest.mark.parametrize("biases", [True, False])
def test_each_network_answers_its_own_tokens(biases):
    mlp, x = make_mlp(2, 3, biases=biases), draw(2, 3, M, Din)
    y = answer(mlp, x)
    for place in ((0, 0), (0, 2), (1, 1)):
        own = mlp.map(operator.itemgetter(place))
        torch.testing.assert_close(y[place], answer_naive(own, x[place]))


@pytest.mark.parametrize("biases", [True, False])
def test_gradients_agree_with_autograd(biases):
    mlp, x, d_out = make_mlp(2, biases=biases), draw(2, M, Din), draw(2, M, Dout, seed=9)
    found = gradients(mlp, x, activate(mlp, x), d_out)
    expected = torch.autograd.grad(answer(mlp, x), list(iter_tensors(mlp)), d_out)
    for a, b in zip(iter_tensors(found), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_rates_weigh_each_tokens_gradient_of_each_matrix():
    mlp, x, d_out = make_mlp(), draw(M, Din), draw(M, Dout, seed=9)
    rates = draw(3, M, 1, seed=8)
    found = gradients(mlp, x, activate(mlp, x), d_out, tuple(rates))
    for name, rate in zip(("gate", "up", "down"), rates, strict=True):
        y = answer(mlp, x)
        per_token = [
            torch.autograd.grad(y[t], getattr(mlp, name), d_out[t], retain_graph=True)[0] for t in range(M)
        ]
        expected = sum(r * g for r, g in zip(rate[:, 0], per_token, strict=True))
        torch.testing.assert_close(getattr(found, name), expected)


@pytest.mark.parametrize("clip_gradients", [False, True])
def test_a_step_is_that_of_the_definition_through_second_order(clip_gradients):
    options = FastMLPOptions(
        chunk_size=M, lookahead=0, lr=0.7, weight_decay=0.2, clip_gradients=clip_gradients
    )
    mlp, x, target = make_mlp(1), draw(1, M, Din), draw(1, M, Dout, seed=7)
    mask = torch.tensor([[1.0, 0, 1, 1, 0, 1]], dtype=torch.float64)
    found = regression_step(mlp, x, target, mask, lr=0.7, weight_decay=0.2, clip_gradients=clip_gradients)
    _, expected = fast_mlp_naive(x, target, mlp.map(lambda p: p[0]), options, mask=mask)
    pairs = list(zip(iter_tensors(found), iter_tensors(expected), strict=True))
    for a, b in pairs:
        torch.testing.assert_close(a[0], b)
    wanted = [x, target, *iter_tensors(mlp)]
    sums = [sum(p.sin().sum() for p in side) for side in zip(*pairs, strict=True)]
    for a, b in zip(*(torch.autograd.grad(total, wanted) for total in sums), strict=True):
        torch.testing.assert_close(a, b)


def test_all_option_problems_are_reported_at_once():
    with pytest.raises(ValueError, match=r"chunk_size.*; lookahead.*; weight_decay"):
        FastMLPOptions(chunk_size=0, lookahead=-1, weight_decay=-0.1)
