"""The contract of every token mixer (DESIGN, section 6), in float64, with blocks and chunks made tiny."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fwpkm.layers.attend as attend_module
import fwpkm.ops.delta_rule.torch as delta_rule_module
from fwpkm.layers.attention import Attention, AttentionConfig
from fwpkm.layers.conv import ShortConv, ShortConvConfig
from fwpkm.layers.gated_delta_net import GatedDeltaNet, GatedDeltaNetConfig
from fwpkm.layers.rope import RopeConfig
from fwpkm.state import iter_tensors

DIM = 12
HEADS = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "rope": RopeConfig(fraction=0.5)}
GDN = {"num_key_heads": 2, "num_value_heads": 4, "key_head_dim": 4, "value_head_dim": 6}


def make_layer(name):
    torch.manual_seed(0)
    layer = {
        "full attention": lambda: Attention(DIM, AttentionConfig(**HEADS)),
        "window of 5": lambda: Attention(DIM, AttentionConfig(**HEADS, window=5)),
        "window of 1": lambda: Attention(DIM, AttentionConfig(**HEADS, window=1)),
        "gated delta net": lambda: GatedDeltaNet(DIM, GatedDeltaNetConfig(**GDN)),
        "naive delta net": lambda: GatedDeltaNet(DIM, GatedDeltaNetConfig(**GDN, backend="naive")),
        "short convolution": lambda: ShortConv(DIM, ShortConvConfig(bias=True)),
        "convolution of 1": lambda: ShortConv(DIM, ShortConvConfig(kernel_size=1)),
    }[name]()
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return layer.double()


NAMES = (
    "full attention",
    "window of 5",
    "window of 1",
    "gated delta net",
    "naive delta net",
    "short convolution",
    "convolution of 1",
)
every_mixer = pytest.mark.parametrize("layer", [make_layer(n) for n in NAMES], ids=NAMES)
few = settings(deadline=None, max_examples=10)


@pytest.fixture(autouse=True, scope="module")
def tiny_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attend_module, "MIN_BLOCK", 4)
        patch.setattr(delta_rule_module, "MAX_CHUNK", 8)
        yield


def tokens(seed, B, T):
    return torch.randn(B, T, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_mask(seed, B, T, share):
    return torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) < share


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def assert_same_state(a, b):
    for x, y in zip(iter_tensors(a), iter_tensors(b), strict=True):
        assert_same(x, y)


def in_pieces(layer, x, cuts, mask=None, state=None):
    edges = [0, *sorted(cuts), x.shape[1]]
    outputs = []
    for start, end in pairwise(edges):
        piece = None if mask is None else mask[:, start:end]
        y, state = layer(x[:, start:end], state, piece)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@every_mixer
@few
@given(seed=st.integers(0, 2**31), T=st.integers(0, 30), data=st.data(), grad=st.booleans())
def test_whole_equals_pieces(layer, seed, T, data, grad):
    cuts, x = data.draw(st.lists(st.integers(0, T), max_size=6)), tokens(seed, 2, T)
    with torch.set_grad_enabled(grad):
        whole, pieces = layer(x), in_pieces(layer, x, cuts)
    assert_same(whole[0], pieces[0])
    assert_same_state(whole[1], pieces[1])


@every_mixer
@pytest.mark.parametrize("grad", [False, True])
def test_whole_equals_single_tokens(layer, grad):
    x = tokens(1, 2, 25)
    with torch.set_grad_enabled(grad):
        whole, pieces = layer(x), in_pieces(layer, x, range(1, 25))
    assert_same(whole[0], pieces[0])
    assert_same_state(whole[1], pieces[1])


@every_mixer
@few
@given(seed=st.integers(0, 2**31), T=st.integers(1, 24), share=st.floats(0, 1), data=st.data())
def test_padding_anywhere_and_other_streams_change_nothing(layer, seed, T, share, data):
    """Each stream alone and without padding gives what it gives in the padded batch cut anywhere."""
    x, mask = tokens(seed, 3, T), random_mask(seed, 3, T, share)
    cuts = data.draw(st.lists(st.integers(0, T), max_size=3))
    more = tokens(seed + 1, 3, 4)
    with torch.no_grad():
        y, state = in_pieces(layer, x.masked_fill(~mask[..., None], float("nan")), cuts, mask)
        later, state = in_pieces(layer, more, (1, 2), state=state)
        assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
        for b in range(3):
            alone, own = layer(torch.cat((x[b : b + 1, mask[b]], more[b : b + 1]), dim=1))
            assert_same(torch.cat((y[b, mask[b]], later[b])), alone[0])
            assert state.tokens_seen[b] == own.tokens_seen[0] == mask[b].sum() + 4


@every_mixer
@few
@given(seed=st.integers(0, 2**31), T=st.integers(1, 16), share=st.floats(0.2, 0.9))
def test_padding_does_not_reach_gradients(layer, seed, T, share):
    x, mask = tokens(seed, 2, T).requires_grad_(), random_mask(seed, 2, T, share)
    y, _ = layer(x, None, mask)
    (grad,) = torch.autograd.grad(y.sin().sum(), x)
    assert torch.equal(grad[~mask], torch.zeros_like(grad[~mask]))
    for b in range(2):
        own = x[b : b + 1, mask[b]].detach().requires_grad_()
        (alone,) = torch.autograd.grad(layer(own)[0].sin().sum(), own)
        assert_same(grad[b, mask[b]], alone[0])


@every_mixer
def test_not_even_nan_padding_reaches_the_gradients_of_the_weights(layer):
    x, mask = tokens(13, 2, 12), random_mask(13, 2, 12, 0.5)
    grads = []
    for padding in (0.0, float("nan")):
        y, state = layer(x.masked_fill(~mask[..., None], padding), None, mask)
        loss = y.sin().sum() + sum(t.double().sum() for t in iter_tensors(state))
        grads.append(torch.autograd.grad(loss, list(layer.parameters()), allow_unused=True))
    for zeros, nans in zip(*grads, strict=True):
        assert zeros is nans is None or torch.equal(zeros, nans)


@every_mixer
@pytest.mark.parametrize("t", [1, 7, 19])
def test_no_output_depends_on_a_later_token(layer, t):
    x = tokens(2, 2, 20).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x)[0][:, :t].sin().sum(), x)
    assert torch.equal(grad[:, t:], torch.zeros_like(grad[:, t:]))


@every_mixer
@pytest.mark.parametrize("grad", [False, True])
def test_the_given_state_is_untouched_and_forks_do_not_see_each_other(layer, grad):
    x, ways = tokens(3, 2, 9), [tokens(4 + i, 2, 6) for i in range(3)]
    with torch.set_grad_enabled(grad):
        _, parent = in_pieces(layer, x, (4, 7))
        before = [t.clone() for t in iter_tensors(parent)]
        forks, outputs = [parent] * 3, [[], [], []]
        for t in range(6):
            for i in range(3):
                y, forks[i] = layer(ways[i][:, t : t + 1], forks[i])
                outputs[i].append(y)
        for i in range(3):
            alone, state = layer(torch.cat((x, ways[i]), dim=1))
            assert_same(torch.cat(outputs[i], dim=1), alone[:, 9:])
            assert_same_state(forks[i], state)
    for old, now in zip(before, iter_tensors(parent), strict=True):
        assert torch.equal(old, now)


@every_mixer
def test_select_reorders_and_repeats_streams(layer):
    x, more = tokens(5, 3, 8), tokens(6, 4, 5)
    streams = torch.tensor([2, 0, 0, 1])
    mask = random_mask(7, 3, 8, 0.6)
    with torch.no_grad():
        _, state = in_pieces(layer, x, (7,), mask)
        y, _ = in_pieces(layer, more, (1, 2), state=state.select(streams))
        for b, stream in enumerate(streams):
            alone, _ = layer(torch.cat((x[stream, mask[stream]], more[b]))[None])
            assert_same(y[b], alone[0, -5:])


@every_mixer
def test_gradients_flow_through_the_state_until_it_is_detached(layer):
    x = tokens(8, 2, 10).requires_grad_()
    whole = torch.autograd.grad(layer(x)[0].sin().sum(), x)
    pieces = torch.autograd.grad(in_pieces(layer, x, (3, 6))[0].sin().sum(), x)
    assert_same(whole[0], pieces[0])
    _, state = layer(x[:, :6])
    y, _ = layer(x[:, 6:], state.detach())
    (cut,) = torch.autograd.grad(y.sin().sum(), x)
    assert torch.equal(cut[:, :6], torch.zeros_like(cut[:, :6]))


@every_mixer
def test_a_moved_state_continues_like_the_original(layer):
    x, more = tokens(9, 2, 6), tokens(10, 2, 3)
    with torch.no_grad():
        _, state = in_pieces(layer, x, (5,))
        assert_same(layer(more, state.to("cpu"))[0], layer(more, state)[0])


@every_mixer
def test_a_state_says_how_many_bytes_it_needs(layer):
    with torch.no_grad():
        _, state = in_pieces(layer, tokens(11, 2, 9), (4, 8))
    assert state.num_bytes == sum(t.numel() * t.element_size() for t in iter_tensors(state))


@every_mixer
def test_half_precision_stays_half_precision_and_near_the_exact_result(layer):
    x = tokens(12, 2, 20)
    exact = layer(x)[0]
    half = copy.deepcopy(layer).bfloat16()
    y, state = half(x.bfloat16())
    more, _ = half(x[:, :1].bfloat16(), state)
    assert y.dtype == more.dtype == torch.bfloat16
    assert (y.double() - exact).norm() < 0.1 * exact.norm()
