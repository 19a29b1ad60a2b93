"""Attention against loops over streams, heads and tokens, in float64."""

import pytest
import torch
import torch.nn.functional as F

import fwpkm.layers.attend as attend_module
from fwpkm.layers.attend import attend


def attend_by_loops(q, keys, v, window, missing):
    (B, T, H, Dh), S, share = q.shape, keys.shape[1], q.shape[2] // keys.shape[2]
    out = torch.zeros_like(q)
    for b in range(B):
        for t in range(T):
            last = S - T + t
            first = max(int(missing[b]), 0 if window is None else last - window + 1)
            for h in range(H):
                seen, values = keys[b, first : last + 1, h // share], v[b, first : last + 1, h // share]
                out[b, t, h] = torch.softmax(seen @ q[b, t, h] / Dh**0.5, dim=0) @ values
    return out


def make_inputs(T, S, seed=0):
    gen = torch.Generator().manual_seed(seed)
    shapes = ((2, T, 4, 6), (2, S, 2, 6), (2, S, 2, 6))
    q, keys, v = (torch.randn(*s, generator=gen, dtype=torch.float64) for s in shapes)
    return q, keys, v, torch.randint(0, S - T + 1, (2,), generator=gen)


SIZES = [(1, 1, None), (1, 5, None), (5, 5, None), (5, 9, None), (1, 9, 3), (3, 9, 3), (9, 9, 20)]
BLOCKED = [(20, 20, 3), (20, 25, 5), (21, 24, 1), (23, 26, 4), (16, 40, 8)]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("T", "S", "window"), SIZES + BLOCKED)
def test_every_path_agrees_with_the_loops(T, S, window, ragged, monkeypatch):
    monkeypatch.setattr(attend_module, "MIN_BLOCK", 4)
    q, keys, v, missing = make_inputs(T, S)
    out = attend(q, keys, v, window=window, missing=missing if ragged else None)
    expected = attend_by_loops(q, keys, v, window, missing if ragged else torch.zeros(2))
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("T", "S", "window"), BLOCKED)
def test_blocks_have_the_gradients_of_the_loops(T, S, window, monkeypatch):
    monkeypatch.setattr(attend_module, "MIN_BLOCK", 4)
    q, keys, v, missing = make_inputs(T, S)
    leaves = [x.requires_grad_() for x in (q, keys, v)]
    fast = torch.autograd.grad(attend(q, keys, v, window=window, missing=missing).sin().sum(), leaves)
    loops = torch.autograd.grad(attend_by_loops(q, keys, v, window, missing).sin().sum(), leaves)
    torch.testing.assert_close(fast, loops, rtol=1e-9, atol=1e-11)


def test_a_window_never_scores_more_than_two_blocks_at_once(monkeypatch):
    spans = []
    scored = F.scaled_dot_product_attention

    def spy(q, keys, *args, **kwargs):
        spans.append(keys.shape[-2])
        return scored(q, keys, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    q, keys, v, _ = make_inputs(1000, 1200)
    attend(q, keys, v, window=70)
    assert max(spans) <= 2 * 70
