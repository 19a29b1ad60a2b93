"""The feed-forward part against its formula."""

import pytest
import torch

from fwpkm.layers.swiglu import SwiGLU, SwiGLUConfig


def test_it_is_down_of_silu_gate_times_up():
    layer, x = SwiGLU(4, SwiGLUConfig(hidden_dim=6)).double(), torch.randn(2, 3, 4, dtype=torch.float64)
    gate, up = x @ layer.gate_proj.weight.T, x @ layer.up_proj.weight.T
    torch.testing.assert_close(layer(x), (gate * torch.sigmoid(gate) * up) @ layer.down_proj.weight.T)


def test_bias_adds_three_constants():
    with_bias = SwiGLU(4, SwiGLUConfig(hidden_dim=6, bias=True))
    assert {name for name, _ in with_bias.named_parameters() if name.endswith("bias")} == {
        "gate_proj.bias",
        "up_proj.bias",
        "down_proj.bias",
    }


def test_an_empty_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="hidden_dim must be at least 1, got hidden_dim=0"):
        SwiGLUConfig(hidden_dim=0)
