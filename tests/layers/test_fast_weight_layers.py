"""The contract of every layer with chunked fast weights (DESIGN, section 6), in float64, with tiny chunks."""

import copy
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm.layers.fwmlp import FastWeightMLP, FastWeightMLPConfig
from fwpkm.layers.lact import LaCT
from fwpkm.layers.lact_config import LaCTConfig
from fwpkm.layers.rope import RopeConfig
from fwpkm.memory.chunks import ChunkedState
from fwpkm.state import iter_tensors

DIM = 8
# Steps that move the fast weights far, and yet in none of 6,000 random inputs let them run away: where they do, as
# this cubic network's may, rounding grows with them, and two right orders of adding no longer agree.
MLP = {"dim": DIM, "hidden_dim": 5, "key_dim": 4, "value_dim": 3, "chunk_size": 4, "lr": 0.05}
LACT = {"num_heads": 4, "head_dim": 2, "num_fast_heads": 2, "initial_rank": 2, "chunk_size": 4, "window": 3}
LACT |= {"base_lr": 0.5, "rope": RopeConfig(base=100.0)}


def make_layer(name):
    torch.manual_seed(0)
    layer = {
        "fast mlp": lambda: FastWeightMLP(FastWeightMLPConfig(**MLP)),
        "fast mlp, no lookahead": lambda: FastWeightMLP(FastWeightMLPConfig(**MLP, lookahead=0)),
        "fast mlp, far target": lambda: FastWeightMLP(
            FastWeightMLPConfig(**{**MLP, "lr": 0.005}, lookahead=6, target="last", initial_weights="learned")
        ),
        "lact": lambda: LaCT(DIM, LaCTConfig(**LACT)),
        "lact, muon": lambda: LaCT(DIM, LaCTConfig(**LACT, update="muon", momentum=False)),
    }[name]()
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return layer.double()


NAMES = ("fast mlp", "fast mlp, no lookahead", "fast mlp, far target", "lact", "lact, muon")
every_layer = pytest.mark.parametrize("layer", [make_layer(n) for n in NAMES], ids=NAMES)
few = settings(deadline=None, max_examples=8)


def tokens(seed, B, T):
    return torch.randn(B, T, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_mask(seed, B, T, share):
    return torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) < share


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def memory_of(state):
    return state if isinstance(state, ChunkedState) else state.memory


def contents(state):
    """List all that a state holds; waiting tokens beyond a stream's own count are nobody's."""
    memory = memory_of(state)
    window = [] if memory is state else list(iter_tensors(state.attention))
    waiting = [memory.waiting.tokens([b], n) for b, n in enumerate(memory.waiting.counts)]
    return [*window, *iter_tensors(memory.fast), *waiting, torch.tensor(memory.tokens_seen)]


def assert_same_state(a, b):
    for x, y in zip(contents(a), contents(b), strict=True):
        assert_same(x, y)


def in_pieces(layer, x, cuts, mask=None, state=None):
    edges = [0, *sorted(cuts), x.shape[1]]
    outputs = []
    for start, end in pairwise(edges):
        piece = None if mask is None else mask[:, start:end]
        y, state = layer(x[:, start:end], state, piece)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@every_layer
@few
@given(seed=st.integers(0, 2**31), T=st.integers(0, 20), data=st.data(), grad=st.booleans())
def test_whole_equals_pieces(layer, seed, T, data, grad):
    cuts, x = data.draw(st.lists(st.integers(0, T), max_size=5)), tokens(seed, 2, T)
    with torch.set_grad_enabled(grad):
        whole, pieces = layer(x), in_pieces(layer, x, cuts)
    assert_same(whole[0], pieces[0])
    assert_same_state(whole[1], pieces[1])


@every_layer
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_whole_equals_single_tokens(layer, mode):
    x = tokens(1, 2, 15)
    with mode():
        whole, pieces = layer(x), in_pieces(layer, x, range(1, 15))
        assert_same(whole[0], pieces[0])
        assert_same_state(whole[1], pieces[1])


@every_layer
@few
@given(seed=st.integers(0, 2**31), T=st.integers(1, 16), share=st.floats(0, 1), data=st.data())
def test_padding_anywhere_and_other_streams_change_nothing(layer, seed, T, share, data):
    """Each stream alone and without padding gives what it gives in the padded batch cut anywhere."""
    x, mask, more = tokens(seed, 3, T), random_mask(seed, 3, T, share), tokens(seed + 1, 3, 4)
    cuts = data.draw(st.lists(st.integers(0, T), max_size=2))
    with torch.no_grad():
        y, state = in_pieces(layer, x.masked_fill(~mask[..., None], float("nan")), cuts, mask)
        later, state = in_pieces(layer, more, (1, 2), state=state)
        assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
        for b in range(3):
            alone, own = layer(torch.cat((x[b : b + 1, mask[b]], more[b : b + 1]), dim=1))
            assert_same(torch.cat((y[b, mask[b]], later[b])), alone[0])
            assert state.tokens_seen[b] == own.tokens_seen[0] == mask[b].sum() + 4


@every_layer
def test_not_even_nan_padding_reaches_a_gradient(layer):
    x, mask = tokens(13, 2, 12), random_mask(13, 2, 12, 0.6)
    wanted, grads = list(layer.parameters()), []
    for padding in (0.0, float("nan")):
        own = x.masked_fill(~mask[..., None], padding).requires_grad_()
        y, state = layer(own, None, mask)
        loss = y.sin().sum() + sum(t.sum() for t in iter_tensors(memory_of(state).fast))
        grads.append(torch.autograd.grad(loss, [own, *wanted], allow_unused=True))
    assert torch.equal(grads[0][0][~mask], torch.zeros_like(grads[0][0][~mask]))
    for zeros, nans in zip(*grads, strict=True):
        assert zeros is nans is None or torch.equal(zeros, nans)


@every_layer
@pytest.mark.parametrize("t", [1, 7, 13])
def test_no_output_depends_on_a_later_token(layer, t):
    x = tokens(2, 2, 14).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x)[0][:, :t].sin().sum(), x)
    assert torch.equal(grad[:, t:], torch.zeros_like(grad[:, t:]))


@every_layer
@pytest.mark.parametrize("grad", [False, True])
def test_the_given_state_is_untouched_and_forks_do_not_see_each_other(layer, grad):
    x, ways = tokens(3, 2, 9), [tokens(4 + i, 2, 6) for i in range(3)]
    with torch.set_grad_enabled(grad):
        _, parent = in_pieces(layer, x, (4, 7))
        before = [t.clone() for t in contents(parent)]
        forks, outputs = [parent] * 3, [[], [], []]
        for t in range(6):
            for i in range(3):
                y, forks[i] = layer(ways[i][:, t : t + 1], forks[i])
                outputs[i].append(y)
        for i in range(3):
            alone, state = layer(torch.cat((x, ways[i]), dim=1))
            assert_same(torch.cat(outputs[i], dim=1), alone[:, 9:])
            assert_same_state(forks[i], state)
    for old, now in zip(before, contents(parent), strict=True):
        assert torch.equal(old, now)


@every_layer
def test_flushing_gives_a_new_state_and_leaves_the_old_one(layer):
    x = tokens(5, 2, 11)
    with torch.no_grad():
        _, state = layer(x)
        before = [t.clone() for t in contents(state)]
        flushed = memory_of(state.flush())
    for old, now in zip(before, contents(state), strict=True):
        assert torch.equal(old, now)
    assert max(flushed.waiting.counts) <= flushed.chunking.lookahead
    fast = zip(iter_tensors(flushed.fast), iter_tensors(memory_of(state).fast), strict=True)
    assert any(not torch.equal(a, b) for a, b in fast)


@every_layer
def test_select_reorders_and_repeats_streams(layer):
    x, more, mask = tokens(5, 3, 8), tokens(6, 4, 5), random_mask(7, 3, 8, 0.6)
    streams = torch.tensor([2, 0, 0, 1])
    with torch.no_grad():
        _, state = in_pieces(layer, x, (7,), mask)
        y, _ = in_pieces(layer, more, (1, 2), state=state.select(streams))
        for b, stream in enumerate(streams):
            alone, _ = layer(torch.cat((x[stream, mask[stream]], more[b]))[None])
            assert_same(y[b], alone[0, -5:])


@every_layer
def test_gradients_flow_through_the_state_until_it_is_detached(layer):
    x = tokens(8, 2, 11).requires_grad_()
    whole = torch.autograd.grad(layer(x)[0].sin().sum(), x)
    pieces = torch.autograd.grad(in_pieces(layer, x, (3, 6))[0].sin().sum(), x)
    assert_same(whole[0], pieces[0])
    _, state = layer(x[:, :6])
    y, _ = layer(x[:, 6:], state.detach())
    (cut,) = torch.autograd.grad(y.sin().sum(), x)
    assert torch.equal(cut[:, :6], torch.zeros_like(cut[:, :6]))


@every_layer
def test_writes_are_differentiated_numerically_right(layer):
    x = tokens(9, 1, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x)[0][:, -1].sum(), x, atol=1e-6)


@every_layer
def test_a_moved_or_pickled_state_continues_like_the_original(layer):
    x, more = tokens(9, 2, 6), tokens(10, 2, 3)
    with torch.no_grad():
        _, state = in_pieces(layer, x, (5,))
        expected = layer(more, state)[0]
        assert_same(layer(more, state.to("cpu"))[0], expected)
        assert_same(layer(more, pickle.loads(pickle.dumps(state)))[0], expected)


@every_layer
def test_a_state_says_how_many_bytes_it_needs(layer):
    with torch.no_grad():
        _, state = in_pieces(layer, tokens(11, 2, 9), (4, 8))
    assert state.num_bytes == sum(t.numel() * t.element_size() for t in contents(state)[:-1])


@every_layer
def test_half_precision_stays_half_precision_with_fast_weights_in_float32(layer):
    x = tokens(12, 2, 14)
    exact = layer(x)[0]
    half = copy.deepcopy(layer).float().bfloat16()
    y, state = half(x.bfloat16())
    more, _ = half(x[:, :1].bfloat16(), state)
    assert y.dtype == more.dtype == torch.bfloat16
    assert {p.dtype for p in iter_tensors(memory_of(state).fast)} == {torch.float32}
    assert (y.double() - exact).norm() < 0.1 * exact.norm()


@every_layer
def test_autocast_trains(layer):
    layer, x = copy.deepcopy(layer).float(), tokens(12, 2, 9).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer(x)
        y.float().square().mean().backward()
    assert {p.dtype for p in iter_tensors(memory_of(state).fast)} == {torch.float32}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@every_layer
def test_a_state_of_other_streams_is_refused(layer):
    _, state = layer(tokens(0, 2, 3))
    with pytest.raises(ValueError, match="x has 3 streams and the state 2"):
        layer(tokens(0, 3, 3), state)
