"""Gated attention: the block against its formula, its configuration, and the window given at a call."""

import pytest
import torch
import torch.nn.functional as F

from fwpkm.layers.attention import Attention, AttentionConfig
from fwpkm.layers.rope import RopeConfig, rotary_angles, rotate

SIZES = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8}


def make_attention(**fields):
    torch.manual_seed(0)
    layer = Attention(12, AttentionConfig(**{**SIZES, **fields})).double()
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return layer


def tokens(T, B=2):
    return torch.randn(B, T, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_block_is_what_its_parts_say_head_by_head():
    layer, x = make_attention(rope=RopeConfig(fraction=0.5), bias=True), tokens(6)
    q_and_gate = layer.q_proj(x).view(2, 6, 4, 16)
    cos, sin = rotary_angles(layer.config.rope, 8, torch.arange(6)[None])
    q = rotate(layer.q_norm(q_and_gate[..., :8]), cos, sin)
    keys = rotate(layer.k_norm(layer.k_proj(x).view(2, 6, 2, 8)), cos, sin)
    v = layer.v_proj(x).view(2, 6, 2, 8)
    heads = []
    for h in range(4):
        score = q[:, :, h] @ keys[:, :, h // 2].mT / 8**0.5
        score = score.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), float("-inf"))
        heads.append(score.softmax(-1) @ v[:, :, h // 2] * q_and_gate[:, :, h, 8:].sigmoid())
    torch.testing.assert_close(layer(x)[0], layer.o_proj(torch.cat(heads, dim=-1)))


def test_a_window_given_at_the_call_narrows_that_call_only():
    full, narrow, x = make_attention(), make_attention(window=3), tokens(12)
    y, state = full(x[:, :8], window=3)
    torch.testing.assert_close(y, narrow(x[:, :8])[0])
    torch.testing.assert_close(full(x[:, 8:], state)[0], full(x)[0][:, 8:])


def test_a_window_wider_than_what_the_state_keeps_is_refused():
    layer = make_attention(window=3)
    with pytest.raises(
        ValueError, match=r"window must be at least 1 and at most the layer's own 3.*got window=4"
    ):
        layer(tokens(5), window=4)
    with pytest.raises(ValueError, match="window must be at least 1, got window=0"):
        make_attention()(tokens(5), window=0)


def test_a_single_key_value_head_serves_all_query_heads():
    layer, x = make_attention(num_kv_heads=1), tokens(5)
    single = make_attention(num_kv_heads=4)
    with torch.no_grad():
        for name in ("q_proj", "o_proj", "q_norm", "k_norm"):
            getattr(single, name).load_state_dict(getattr(layer, name).state_dict())
        for name in ("k_proj", "v_proj"):
            getattr(single, name).weight.copy_(getattr(layer, name).weight.repeat(4, 1))
    torch.testing.assert_close(layer(x)[0], single(x)[0])


@pytest.mark.parametrize(
    "field",
    [{"window": 2}, {"norm_eps": 0.1}, {"rope": RopeConfig(base=10.0)}, {"rope": RopeConfig(fraction=0.25)}],
    ids=str,
)
def test_each_field_that_is_no_size_changes_the_output(field):
    plain, other = make_attention(), make_attention(**field)
    assert not torch.allclose(plain(tokens(6))[0], other(tokens(6))[0])


def test_each_size_shows_in_the_weights():
    shapes = {n: tuple(p.shape) for n, p in make_attention(bias=True).named_parameters()}
    assert shapes == {
        "q_proj.weight": (64, 12),
        "q_proj.bias": (64,),
        "k_proj.weight": (16, 12),
        "k_proj.bias": (16,),
        "v_proj.weight": (16, 12),
        "v_proj.bias": (16,),
        "o_proj.weight": (12, 32),
        "o_proj.bias": (12,),
        "q_norm.weight": (8,),
        "k_norm.weight": (8,),
    }


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(ValueError) as caught:
        AttentionConfig(num_heads=3, num_kv_heads=2, head_dim=7, window=0, norm_eps=0.0)
    message = str(caught.value)
    for part in (
        "AttentionConfig: window must be at least 1, got window=0",
        "norm_eps must be above 0, got norm_eps=0.0",
        "num_heads must be a multiple of num_kv_heads, got num_heads=3 and num_kv_heads=2",
        "head_dim * rope.fraction must be even and at least 2, got 7",
    ):
        assert part in message


def test_ntk_needs_two_pairs_to_tell_fast_from_slow():
    with pytest.raises(ValueError, match="even and at least 4, got 2"):
        AttentionConfig(head_dim=2, rope=RopeConfig(scaling="ntk", factor=2.0))


def test_autocast_runs_the_layer_in_half_precision():
    layer, x = make_attention().float(), tokens(6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer(x)
    assert F.cosine_similarity(y.float().flatten(), layer(x)[0].flatten(), dim=0) > 0.99
