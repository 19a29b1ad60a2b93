"""Rotary embedding against complex multiplication and the formulas of its scalings."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fwpkm.layers.rope import RopeConfig, angles_between, rotary_angles, rotary_frequencies, rotate
from fwpkm.ops.kept import keeping_lists

CPU = torch.device("cpu")


def test_each_pair_turns_like_a_complex_number_and_the_rest_stays():
    config = RopeConfig(base=100.0, fraction=0.5)
    x, positions = torch.randn(2, 5, 3, 16), torch.tensor([[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]])
    y = rotate(x, *rotary_angles(config, 16, positions))
    for i in range(4):
        angle = positions[:, :, None] * 100.0 ** (-2 * i / 8)
        turned = torch.complex(x[..., i], x[..., i + 4]) * torch.polar(torch.ones(()), angle.float())
        torch.testing.assert_close(torch.complex(y[..., i], y[..., i + 4]), turned, rtol=1e-5, atol=1e-5)
    assert torch.equal(y[..., 8:], x[..., 8:])


def test_scores_depend_on_the_distance_only():
    config, (q, key) = RopeConfig(), torch.randn(2, 1, 1, 1, 16)

    def score(i, j):
        at = [rotary_angles(config, 16, torch.tensor([[p]])) for p in (i, j)]
        return (rotate(q, *at[0]) * rotate(key, *at[1])).sum()

    torch.testing.assert_close(score(9, 4), score(105, 100), rtol=1e-4, atol=1e-4)


def test_linear_scaling_divides_positions():
    plain = rotary_angles(RopeConfig(), 16, torch.arange(5)[None])
    stretched = rotary_angles(RopeConfig(scaling="linear", factor=4.0), 16, 4 * torch.arange(5)[None])
    torch.testing.assert_close(stretched, plain)


def test_ntk_scaling_leaves_the_fastest_pair_and_slows_the_slowest_by_the_factor():
    plain = rotary_frequencies(RopeConfig(), 16, CPU)
    scaled = rotary_frequencies(RopeConfig(scaling="ntk", factor=4.0), 16, CPU)
    assert scaled[0] == plain[0] == 1.0
    torch.testing.assert_close(scaled[-1], plain[-1] / 4)


def test_yarn_divides_slow_pairs_only_and_enlarges_both_angles():
    config = RopeConfig(scaling="yarn", factor=8.0, original_length=4096)
    plain, scaled = rotary_frequencies(RopeConfig(), 64, CPU), rotary_frequencies(config, 64, CPU)
    turns = 4096 * plain / (2 * math.pi)
    ratio = plain / scaled
    torch.testing.assert_close(ratio[turns > 64], torch.ones_like(ratio[turns > 64]))
    torch.testing.assert_close(ratio[turns < 0.5], 8 * torch.ones_like(ratio[turns < 0.5]))
    assert (ratio.diff() > -1e-5).all()
    cos, _ = rotary_angles(config, 64, torch.zeros(1, 1, dtype=torch.int64))
    torch.testing.assert_close(cos[0, 0, 0], torch.tensor(0.1 * math.log(8) + 1))


def test_yarn_betas_move_the_ramp():
    def ratio(**betas):
        config = RopeConfig(scaling="yarn", factor=8.0, original_length=4096, **betas)
        return rotary_frequencies(RopeConfig(), 64, CPU) / rotary_frequencies(config, 64, CPU)

    assert ratio(beta_fast=100.0).sum() > ratio().sum() > ratio(beta_slow=0.1).sum()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base": 0.0, "fraction": 0.0}, "base must be above 0.*; fraction must be in"),
        ({"factor": 0.5, "scaling": "linear"}, "factor must be at least 1, got factor=0.5"),
        ({"factor": 2.0}, "factor must be 1 without scaling, got factor=2.0; set scaling"),
        ({"scaling": "yarn", "factor": 2.0}, "original_length must be set for scaling='yarn'"),
        ({"original_length": 128}, "original_length must be set for scaling='yarn' and for nothing else"),
        ({"beta_fast": 1.0, "beta_slow": 2.0}, "beta_fast must be above beta_slow"),
    ],
)
def test_nonsense_is_refused_and_named(fields, message):
    with pytest.raises(ValueError, match=message):
        RopeConfig(**fields)


def test_angles_are_made_once_for_the_same_positions_and_anew_for_others():
    config = RopeConfig(base=77.0)
    first = angles_between(config, 16, 3, 9, CPU)
    assert angles_between(config, 16, 3, 9, CPU) is first
    torch.testing.assert_close(first, rotary_angles(config, 16, torch.arange(3, 9)[None]))
    for others in ((config, 16, 3, 8), (config, 8, 3, 9), (RopeConfig(base=78.0), 16, 3, 9)):
        assert angles_between(*others, CPU) is not first


def test_angles_of_tensors_without_numbers_are_not_kept():
    with FakeTensorMode():
        faked = angles_between(RopeConfig(base=79.0), 16, 0, 4, CPU)
    assert type(faked[0]) is FakeTensor
    real = angles_between(RopeConfig(base=79.0), 16, 0, 4, CPU)
    assert type(real[0]) is torch.Tensor
    with FakeTensorMode():
        assert type(angles_between(RopeConfig(base=79.0), 16, 0, 4, CPU)[0]) is FakeTensor


def test_angles_made_in_inference_mode_may_be_trained_with():
    with torch.inference_mode():
        angles = angles_between(RopeConfig(base=80.0), 8, 0, 3, CPU)
    x = torch.randn(1, 3, 2, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(rotate(x, *angles).square().sum(), x)
    torch.testing.assert_close(grad, 2 * x)  # turning keeps lengths


def test_a_cuda_graph_that_nobody_keeps_angles_for_makes_its_own(monkeypatch):
    config = RopeConfig(base=81.0)
    eager = angles_between(config, 8, 0, 3, CPU)
    for name in ("is_initialized", "is_current_stream_capturing"):
        monkeypatch.setattr(torch.cuda, name, lambda: True)
    own = angles_between(config, 8, 0, 3, CPU)
    assert own is not eager
    torch.testing.assert_close(own, eager)
    with keeping_lists() as held:
        assert angles_between(config, 8, 0, 3, CPU) is eager
    assert held[0] is eager[0]
    assert held[1] is eager[1]
