"""The definition of addressing against loops that look at one number at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.addressing.naive import (
    addressing_loss_naive,
    key_step_naive,
    product_key_topk_naive,
    slot_scores_naive,
)
from fwpkm.testing.inputs import make_core_inputs


def score_by_hand(q, key, score):
    if score == "dot":
        return sum(a * b for a, b in zip(q, key, strict=True))
    return -math.log(1e-3 + sum((a - b) ** 2 for a, b in zip(q, key, strict=True)))


def sub_scores_by_hand(q, keys, score, half, head, m):
    width = keys.shape[-1]
    query = q[m, head, half * width : (half + 1) * width].tolist()
    return [score_by_hand(query, key.tolist(), score) for key in keys[half, head]]


def loss_by_hand(q, keys, topk, score):
    """Entropy of the mean, over tokens and heads, of each row's softmax over its best sub-keys."""
    M, H, n = q.shape[0], q.shape[1], keys.shape[2]
    loss = 0.0
    for half in range(2):
        p = [0.0] * n
        for m in range(M):
            for head in range(H):
                s = sub_scores_by_hand(q, keys, score, half, head, m)
                kept = sorted(range(n), key=lambda i: -s[i])[:topk]
                norm = sum(math.exp(s[i]) for i in kept)
                for i in kept:
                    p[i] += math.exp(s[i]) / norm / (M * H)
        loss += sum(x * math.log(x + 1e-8) for x in p)
    return loss


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 5),
    H=st.integers(1, 3),
    half=st.integers(1, 3),
    score=st.sampled_from(["idw", "dot"]),
    data=st.data(),
)
def test_the_best_slots_are_those_that_sorting_all_n_squared_scores_finds(seed, n, H, half, score, data):
    topk = data.draw(st.integers(1, n))
    x = make_core_inputs(seed, T=3, H=H, n=n, Dk=2 * half)
    q = x.q[0]
    got, slot = product_key_topk_naive(q, x.keys, topk, score)
    for m in range(3):
        for head in range(H):
            s1, s2 = (sub_scores_by_hand(q, x.keys, score, half, head, m) for half in range(2))
            every = sorted(
                ((a + b, i * n + j) for i, a in enumerate(s1) for j, b in enumerate(s2)), reverse=True
            )
            assert slot[m, head].tolist() == [s for _, s in every[:topk]]
            torch.testing.assert_close(got[m, head].tolist(), [s for s, _ in every[:topk]])


def test_slots_are_numbered_row_by_row():
    x = make_core_inputs(0, T=1, n=4)
    s = slot_scores_naive(x.q[0], x.keys, "dot").view(4, 4)
    assert torch.allclose(s - s[:, :1], (s - s[:, :1])[:1].expand(4, 4))  # columns add the same to every row
    torch.testing.assert_close((s[1] - s[0])[0], x.q[0, 0, 0, :2] @ (x.keys[0, 0, 1] - x.keys[0, 0, 0]))


@pytest.mark.parametrize("score", ["idw", "dot"])
@pytest.mark.parametrize(("M", "H", "n", "topk"), [(1, 1, 1, 1), (4, 1, 5, 2), (3, 2, 4, 4), (5, 3, 3, 1)])
def test_the_addressing_loss_is_minus_the_entropy_of_mean_use(M, H, n, topk, score):
    x = make_core_inputs(M, T=M, H=H, n=n)
    got = addressing_loss_naive(x.q[0], x.keys, topk, score)
    assert got.item() == pytest.approx(loss_by_hand(x.q[0], x.keys, topk, score), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("score", ["idw", "dot"])
def test_the_key_step_follows_finite_differences_of_the_loss(score):
    x = make_core_inputs(3, T=6, H=2, n=4)
    q, keys, lr, h = x.q[0], x.keys, 0.7, 1e-5
    stepped = key_step_naive(q, keys, 2, score, lr)
    for at in [(0, 0, 1, 0), (1, 1, 3, 1), (0, 1, 2, 0), (1, 0, 0, 1)]:
        up, down = keys.clone(), keys.clone()
        up[at] += h
        down[at] -= h
        slope = (loss_by_hand(q, up, 2, score) - loss_by_hand(q, down, 2, score)) / (2 * h)
        assert (keys[at] - stepped[at]).item() == pytest.approx(lr * slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("score", ["idw", "dot"])
def test_the_key_step_can_be_differentiated(score):
    x = make_core_inputs(4, T=5, H=2, n=4).leaves()
    assert torch.autograd.gradcheck(lambda q, k: key_step_naive(q, k, 2, score, 0.3), (x.q[0], x.keys))


@pytest.mark.parametrize("score", ["idw", "dot"])
def test_steps_on_the_addressing_loss_spread_the_use_of_the_sub_keys(score):
    x = make_core_inputs(5, T=40, n=6, spread=0.5)
    before = addressing_loss_naive(x.q[0], x.keys, 3, score)
    after = addressing_loss_naive(x.q[0], key_step_naive(x.q[0], x.keys, 3, score, 0.05), 3, score)
    assert after < before
    assert before > 2 * -math.log(6)  # there was room: even use has the least loss
