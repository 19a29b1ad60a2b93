"""Both normalisations against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from fwpkm.layers.norm import GatedRMSNorm, PlainRMSNorm, RMSNorm


def test_zero_centred_norm_scales_unit_rms_by_one_plus_the_weight():
    norm, x = RMSNorm(6, eps=1e-3).double(), torch.randn(4, 6, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    for row, y in zip(x, norm(x), strict=True):
        rms = (row.dot(row) / 6 + 1e-3).sqrt()
        torch.testing.assert_close(y, row / rms * (1 + norm.weight))


def test_plain_norm_scales_unit_rms_by_the_weight_that_starts_at_one():
    norm, x = PlainRMSNorm(6, eps=1e-3).double(), torch.randn(4, 6, dtype=torch.float64)
    assert torch.equal(norm.weight, torch.ones(6, dtype=torch.float64))
    torch.nn.init.normal_(norm.weight)
    rms = (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x), norm.weight * x / rms)


def test_gated_norm_scales_by_the_weight_and_the_silu_of_the_gate():
    norm = GatedRMSNorm(6, eps=1e-3).double()
    x, gate = torch.randn(2, 4, 6, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    rms = (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x, gate), norm.weight * x / rms * F.silu(gate))


def test_both_start_as_plain_normalisation():
    x = torch.randn(3, 8)
    plain = x / x.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(RMSNorm(8)(x), plain, rtol=1e-4, atol=1e-5)
    gate = torch.full_like(x, 1.2784645)  # silu(1.2784645...) = 1
    torch.testing.assert_close(GatedRMSNorm(8)(x, gate), plain, rtol=1e-4, atol=1e-5)


def test_half_precision_is_normalised_in_float32():
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # its square overflows float16
    assert torch.equal(RMSNorm(4)(x), torch.ones_like(x))


@pytest.mark.parametrize("norm", [RMSNorm, PlainRMSNorm, GatedRMSNorm])
def test_nonsense_sizes_are_refused_together(norm):
    with pytest.raises(
        ValueError, match=r"dim must be at least 1, got dim=0; eps must be above 0, got eps=0.0"
    ):
        norm(0, eps=0.0)


@pytest.mark.parametrize("norm", [RMSNorm, PlainRMSNorm, GatedRMSNorm])
def test_printing_shows_width_and_eps(norm):
    assert "(5, eps=0.001" in repr(norm(5, eps=1e-3))
