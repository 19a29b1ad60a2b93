"""The line of waiting tokens as a value: any mixture of appends, forks and exchanges, against plain lists."""

import random
from contextlib import nullcontext

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm.memory.tokens import Tokens
from fwpkm.memory.waiting import Waiting

B, W = 3, 2
MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def held(waiting):
    return [waiting.tokens([b], n)[0, :n].tolist() for b, n in enumerate(waiting.counts)]


def grow(rng, waiting, lists):
    """Return a further value by a random means, and what it must hold."""
    how = rng.choice(["append", "append", "append", "even", "exchange", "select", "detach", "to"])
    if how in ("append", "even"):
        new = torch.randn(
            B, rng.randrange(4), W, requires_grad=torch.is_grad_enabled() and rng.random() < 0.3
        )
        counts = [new.shape[1] if how == "even" else rng.randint(0, new.shape[1]) for _ in range(B)]
        lists = [old + new[b, :n].tolist() for b, (old, n) in enumerate(zip(lists, counts, strict=True))]
        return waiting.append(new, counts, capacity=rng.randrange(8)), lists
    if how == "exchange":
        streams = sorted(rng.sample(range(B), rng.randint(1, B)))
        new = torch.randn(len(streams), rng.randrange(4), W)
        chosen = dict(zip(streams, new.tolist(), strict=True))
        return waiting.replaced(streams, new), [chosen.get(b, old) for b, old in enumerate(lists)]
    if how == "select":
        streams = [rng.randrange(B) for _ in range(B)]
        return waiting.select(torch.tensor(streams)), [lists[b] for b in streams]
    return (waiting.detach() if how == "detach" else waiting.to("cpu")), lists


@settings(max_examples=100)
@given(seed=st.integers(0, 10**9), steps=st.integers(1, 25), recent=st.booleans())
def test_every_value_holds_its_own_tokens_whatever_was_appended_to_its_relatives(seed, steps, recent):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    values = [(Waiting.empty(B, torch.empty(0, W)), [[] for _ in range(B)])]
    for _ in range(steps):
        parent = values[-1] if recent and rng.random() < 0.8 else rng.choice(values)
        with MODES[rng.choice(sorted(MODES))]():
            values.append(grow(rng, *parent))
    for waiting, lists in values:
        assert held(waiting) == lists
        assert waiting.counts == tuple(len(tokens) for tokens in lists)
        assert waiting.num_bytes == sum(len(tokens) for tokens in lists) * W * 4
        assert waiting.packed.shape == (B, max(waiting.counts), W)


def test_appending_to_the_newest_value_goes_in_place():
    first = Waiting.empty(1, torch.empty(0, W)).append(torch.ones(1, 2, W), [2], capacity=8)
    second = first.append(torch.ones(1, 1, W), [1], capacity=8)
    assert second.packed.data_ptr() == first.packed.data_ptr()
    fork = first.append(torch.zeros(1, 1, W), [1], capacity=8)
    assert fork.packed.data_ptr() != first.packed.data_ptr()


def test_appended_tokens_keep_their_graph():
    new = torch.randn(1, 2, W, requires_grad=True)
    waiting = Waiting.empty(1, torch.empty(0, W)).append(torch.zeros(1, 1, W), [1], capacity=4)
    (grad,) = torch.autograd.grad(waiting.append(new, [2], capacity=4).packed.sum(), new)
    assert torch.equal(grad, torch.ones_like(new))


def make_tokens(num_tokens, gate=True, mask=False):
    return Tokens(
        q=torch.randn(B, num_tokens, 2, 4),
        v=torch.randn(B, num_tokens, 3),
        gate=torch.rand(B, num_tokens) if gate else None,
        write_mask=(torch.rand(B, num_tokens) > 0.5).float() if mask else None,
    )


def test_packed_tokens_come_out_as_they_went_in():
    x = make_tokens(5, mask=True)
    y = Tokens.unpack(x.pack(), heads=2, key_dim=4)
    assert all(torch.equal(getattr(x, name), getattr(y, name)) for name in ("q", "v", "gate", "write_mask"))


def test_missing_gates_and_masks_are_packed_as_ones():
    y = Tokens.unpack(make_tokens(5, gate=False).pack(), heads=2, key_dim=4)
    assert torch.equal(y.gate, torch.ones(B, 5))
    assert torch.equal(y.write_mask, torch.ones(B, 5))
    assert y.without_idle_mask().write_mask is None
    assert make_tokens(5, mask=True).without_idle_mask().write_mask is not None


def test_tokens_join_in_order_and_a_mask_on_one_side_masks_nothing_on_the_other():
    old, new = make_tokens(2), make_tokens(3, mask=True)
    joined = new.after(old)
    assert torch.equal(joined.q, torch.cat((old.q, new.q), dim=1))
    assert torch.equal(joined.write_mask, torch.cat((torch.ones(B, 2), new.write_mask), dim=1))
    turned = make_tokens(1).after(joined)
    assert torch.equal(turned.write_mask, torch.cat((joined.write_mask, torch.ones(B, 1)), dim=1))
    assert make_tokens(1).after(old).write_mask is None
