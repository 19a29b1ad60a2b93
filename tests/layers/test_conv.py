"""The short convolution against torch's, and its configuration."""

import pytest
import torch
import torch.nn.functional as F

from fwpkm.layers.conv import ShortConv, ShortConvConfig


@pytest.mark.parametrize("kernel_size", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_torchs_depthwise_convolution_with_zeros_before_the_first_token(kernel_size, bias):
    layer = ShortConv(5, ShortConvConfig(kernel_size=kernel_size, bias=bias)).double()
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(2, 9, 5, dtype=torch.float64)
    expected = F.conv1d(F.pad(x.mT, (kernel_size - 1, 0)), layer.weight, layer.bias, groups=5).mT
    torch.testing.assert_close(layer(x)[0], expected)


def test_the_state_holds_no_more_than_the_tail():
    _, state = ShortConv(5, ShortConvConfig())(torch.randn(2, 500, 5))
    assert state.tail.untyped_storage().nbytes() == 2 * 3 * 5 * 4


def test_the_kernel_starts_within_its_bound_and_the_bias_at_zero():
    layer = ShortConv(200, ShortConvConfig(bias=True))
    assert 0.4 < layer.weight.abs().max() <= 0.5
    assert torch.equal(layer.bias, torch.zeros(200))
    assert "200, kernel_size=4, bias=True" in repr(layer)


def test_an_empty_kernel_is_refused():
    with pytest.raises(
        ValueError, match="ShortConvConfig: kernel_size must be at least 1, got kernel_size=0"
    ):
        ShortConvConfig(kernel_size=0)
