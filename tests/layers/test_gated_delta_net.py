"""Gated DeltaNet: its decay, its configuration and its start. The block itself: test_against_transformers."""

import inspect

import pytest
import torch

from fwpkm.layers.gated_delta_net import GatedDeltaNet, GatedDeltaNetConfig

SIZES = {"num_key_heads": 2, "num_value_heads": 4, "key_head_dim": 4, "value_head_dim": 6}


def make_net(**fields):
    torch.manual_seed(0)
    return GatedDeltaNet(12, GatedDeltaNetConfig(**{**SIZES, **fields}))


def test_backends_agree():
    x = torch.randn(2, 70, 12)
    torch.testing.assert_close(
        make_net(backend="torch")(x)[0], make_net(backend="naive")(x)[0], rtol=1e-4, atol=1e-5
    )


def test_the_arithmetic_of_the_release_agrees_in_float64_whole_and_in_pieces():
    x = torch.randn(2, 75, 12, dtype=torch.float64)
    mask = torch.rand(2, 75) < 0.8
    expected, last = make_net().double()(x, None, mask)
    net = make_net(arithmetic="release").double()
    torch.testing.assert_close(net(x, None, mask)[0], expected, rtol=1e-9, atol=1e-12)
    y, state = [], None
    for part, part_mask in zip(x.split((1, 3, 70, 1), 1), mask.split((1, 3, 70, 1), 1), strict=True):
        out, state = net(part, state, part_mask)
        y.append(out)
    torch.testing.assert_close(torch.cat(y, 1), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(state.memory, last.memory, rtol=1e-9, atol=1e-12)


def test_the_state_has_a_fixed_size():
    net = make_net()
    assert net(torch.randn(2, 5, 12))[1].num_bytes == net(torch.randn(2, 500, 12))[1].num_bytes


def test_the_decay_starts_between_none_and_sixteen_and_its_shift_at_one():
    net = make_net(num_value_heads=400)
    assert (net.A_log.exp() <= 16).all()
    assert 7 < net.A_log.exp().mean() < 9
    assert torch.equal(net.dt_bias, torch.ones(400))


@pytest.mark.parametrize("field", [{"norm_eps": 0.1}, {"arithmetic": "release"}], ids=str)
def test_each_field_that_is_no_size_changes_the_numbers(field):
    x = torch.randn(1, 300, 12, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(make_net()(x)[0], make_net(**field)(x)[0])


def test_each_size_shows_in_the_weights():
    shapes = {n: tuple(p.shape) for n, p in make_net(conv_kernel_size=3).named_parameters()}
    assert shapes == {
        "in_proj_qkvz.weight": (2 * 8 + 2 * 24, 12),
        "in_proj_ba.weight": (8, 12),
        "conv1d.weight": (40, 1, 3),
        "A_log": (4,),
        "dt_bias": (4,),
        "norm.weight": (6,),
        "out_proj.weight": (12, 24),
    }


def test_all_mistakes_are_reported_at_once():
    # Past the constructor, because the test run's type checker would be faster with wrong names.
    config = object.__new__(GatedDeltaNetConfig)
    fields = {**SIZES, "num_value_heads": 3, "conv_kernel_size": 0, "norm_eps": 0.0}
    for name, value in {**fields, "backend": "triton", "arithmetic": "exact"}.items():
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError) as caught:
        inspect.unwrap(GatedDeltaNetConfig.__post_init__)(config)
    message = str(caught.value)
    for part in (
        "GatedDeltaNetConfig: conv_kernel_size must be at least 1, got conv_kernel_size=0",
        "norm_eps must be above 0",
        "backend must be auto, naive, torch or fla, got backend='triton'",
        "arithmetic must be accurate or release, got arithmetic='exact'",
        "num_value_heads must be a multiple of num_key_heads",
    ):
        assert part in message
