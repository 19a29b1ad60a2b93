"""How attention's state grows: in place where nobody can notice, by copying everywhere else."""

import pytest
import torch

from fwpkm.layers.attention import Attention, AttentionConfig


def make_attention(window=None):
    torch.manual_seed(0)
    return Attention(8, AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=4, window=window))


def decode(layer, state, num_tokens):
    states = []
    for _ in range(num_tokens):
        _, state = layer(torch.randn(2, 1, 8), state)
        states.append(state)
    return states


@torch.no_grad()
def test_decoding_writes_behind_the_visible_tokens_instead_of_copying_them():
    layer = make_attention()
    _, prompt = layer(torch.randn(2, 10, 8))
    first, *rest = decode(layer, prompt, 40)
    assert {s.keys.data_ptr() for s in rest} == {first.keys.data_ptr()}
    assert [s.keys.shape[1] for s in rest] == list(range(12, 51))


@torch.no_grad()
def test_a_full_room_is_left_for_a_larger_one():
    layer = make_attention()
    _, prompt = layer(torch.randn(2, 10, 8))
    places = [s.keys.data_ptr() for s in decode(layer, prompt, 300)]
    assert 2 <= len(set(places)) <= 4


@torch.no_grad()
def test_the_second_fork_moves_to_a_room_of_its_own():
    layer = make_attention()
    _, prompt = layer(torch.randn(2, 10, 8))
    (parent,) = decode(layer, prompt, 1)
    (a,), (b,) = decode(layer, parent, 1), decode(layer, parent, 1)
    assert a.keys.data_ptr() == parent.keys.data_ptr() != b.keys.data_ptr()


@torch.no_grad()
@pytest.mark.parametrize("prompt_length", [2, 30])
def test_a_window_keeps_only_the_tokens_that_can_still_be_seen(prompt_length):
    layer = make_attention(window=8)
    _, state = layer(torch.randn(2, prompt_length, 8))
    states = [state, *decode(layer, state, 200)]
    assert states[0].keys.shape[1] == min(7, prompt_length)
    assert states[0].keys.untyped_storage().nbytes() == 2 * min(7, prompt_length) * 4 * 4
    assert states[-1].keys.shape[1] == 7
    assert max(s.keys.untyped_storage().nbytes() for s in states) <= 2 * 4 * 4 * 160
    assert len({s.keys.untyped_storage().data_ptr() for s in states}) < 10


@torch.no_grad()
def test_without_padding_no_place_is_ever_thought_missing():
    layer = make_attention()
    _, prompt = layer(torch.randn(2, 10, 8))
    for state in (prompt, *decode(layer, prompt, 3)):
        assert state.missing is None
        assert state.shortest == state.longest == state.tokens_seen[0]


def test_with_gradients_every_state_has_tensors_of_its_own():
    layer = make_attention()
    _, prompt = layer(torch.randn(2, 10, 8))
    states = decode(layer, prompt, 3)
    assert all(s.room is None for s in states)
    sum(s.keys.sum() for s in states).backward()
    assert layer.k_proj.weight.grad is not None


def test_a_room_that_autograd_may_still_need_is_not_written_to():
    layer = make_attention()
    with torch.no_grad():
        (state,) = decode(layer, layer(torch.randn(2, 10, 8))[1], 1)
    y, _ = layer(torch.randn(2, 1, 8), state)
    decode(layer, state, 2)
    y.sum().backward()


def test_a_state_made_in_inference_mode_continues_outside_of_it():
    layer, x = make_attention(), torch.randn(2, 12, 8)
    with torch.inference_mode():
        _, state = layer(x[:, :9])
        _, state = layer(x[:, 9:10], state)
    with torch.no_grad():
        y, state = layer(x[:, 10:11], state)
        y, _ = layer(x[:, 11:], state)
        torch.testing.assert_close(y, layer(x)[0][:, 11:])


@torch.no_grad()
def test_a_state_whose_tensors_were_replaced_does_not_follow_its_old_room():
    layer, x = make_attention(), torch.randn(2, 12, 8)
    (state,) = decode(layer, layer(x)[1], 1)
    copied = state.to("cpu")
    moved = type(state)(**{**vars(state), "keys": state.keys.clone(), "v": state.v.clone()})
    more = torch.randn(2, 1, 8)
    expected = layer(more, copied)[0]
    torch.testing.assert_close(layer(more, moved)[0], expected)
    assert layer(more, moved)[1].keys.data_ptr() != state.keys.data_ptr()


@torch.no_grad()
def test_a_precision_change_between_calls_copies_the_room():
    layer, x = make_attention(), torch.randn(2, 12, 8)
    (state,) = decode(layer, layer(x)[1], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, after = layer(torch.randn(2, 1, 8), state)
    assert y.isfinite().all()
    assert state.keys.dtype == torch.float32
    assert after.keys.dtype == after.v.dtype == torch.bfloat16
