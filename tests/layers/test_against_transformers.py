"""The blocks against transformers' Qwen3-Next with the same weights, and rotary scaling against its own."""

import pytest
import torch
from torch import nn

from fwpkm.layers.attention import Attention, AttentionConfig
from fwpkm.layers.gated_delta_net import GatedDeltaNet, GatedDeltaNetConfig
from fwpkm.layers.rope import RopeConfig

qwen = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
ROPES = {
    "default": ({"partial_rotary_factor": 0.25}, RopeConfig(base=1e6, fraction=0.25)),
    "linear": (
        {"partial_rotary_factor": 0.5, "factor": 4.0},
        RopeConfig(base=1e6, fraction=0.5, scaling="linear", factor=4.0),
    ),
    "yarn": (
        {"partial_rotary_factor": 1.0, "factor": 16.0, "original_max_position_embeddings": 256},
        RopeConfig(base=1e6, scaling="yarn", factor=16.0, original_length=256),
    ),
}
T = 70


def make_config(rope_type, **rope):
    config = qwen.Qwen3NextConfig(
        hidden_size=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": rope_type, "rope_theta": 1e6, **rope},
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=6,
    )
    config._attn_implementation = "eager"
    return config


def share_random_weights(theirs, ours):
    torch.manual_seed(0)
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.3)
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("rope_type", ROPES)
def test_attention_computes_what_theirs_does(rope_type, window):
    fields, rope = ROPES[rope_type]
    config = make_config(rope_type, **fields)
    theirs = qwen.Qwen3NextAttention(config, 3)
    ours = Attention(24, AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=32, rope=rope, window=window))
    share_random_weights(theirs, ours)
    x, age = torch.randn(2, T, 24), torch.arange(T)[:, None] - torch.arange(T)
    hidden = (age < 0) | (age >= (window or T))
    angles = qwen.Qwen3NextRotaryEmbedding(config)(x, torch.arange(T)[None])
    expected = theirs(x, angles, torch.zeros(1, 1, T, T).masked_fill(hidden, float("-inf")))[0]
    torch.testing.assert_close(ours(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_gated_delta_net_computes_what_theirs_does():
    config = make_config("default")
    theirs = qwen.Qwen3NextGatedDeltaNet(config, 0)
    ours = GatedDeltaNet(
        24, GatedDeltaNetConfig(num_key_heads=2, num_value_heads=4, key_head_dim=8, value_head_dim=6)
    )
    share_random_weights(theirs, ours)
    x = torch.randn(2, T, 24)
    torch.testing.assert_close(ours(x)[0], theirs(x), rtol=1e-4, atol=1e-5)
