"""Rows in fewer bytes: what is promised about the loss, and what is refused."""

import pytest
import torch

from fwpkm.memory.quantise import ROW_FORMATS, PackedRows

EXTREMES = (0.0, 1e-44, 1e-38, 1.0, 1e30, 3e38)


def random_rows(num_rows=50, width=33, dtype=torch.float32):
    return torch.randn(num_rows, width, dtype=dtype) * torch.logspace(-6, 6, num_rows, dtype=dtype)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_rows_come_back_bit_by_bit(dtype):
    rows = random_rows(dtype=dtype)
    packed = PackedRows.of(rows, "exact")
    assert torch.equal(packed.unpack(dtype), rows)
    assert packed.loss(rows) == 0


def test_int8_errs_by_at_most_half_a_step_of_each_row():
    rows = random_rows()
    back = PackedRows.of(rows, "int8").unpack(torch.float32)
    step = rows.abs().amax(-1, keepdim=True) / 127
    assert ((back - rows).abs() <= 0.5001 * step).all()


def test_bfloat16_errs_by_at_most_half_a_unit_of_its_eight_bits():
    rows = random_rows()
    back = PackedRows.of(rows, "bfloat16").unpack(torch.float32)
    assert ((back - rows).abs() <= rows.abs() * 2.0**-8).all()


@pytest.mark.parametrize("size", EXTREMES)
@pytest.mark.parametrize("form", ROW_FORMATS)
def test_zeros_and_extreme_rows_stay_finite(size, form):
    rows = torch.tensor([[size, -size, size / 2, 0.0]])
    back = PackedRows.of(rows, form).unpack(torch.float32)
    assert back.isfinite().all()
    assert (back - rows).abs().amax() <= max(size, 1e-38) / 100


def test_the_measured_loss_is_the_relative_error():
    rows = random_rows()
    for form in ("bfloat16", "int8"):
        packed = PackedRows.of(rows, form)
        error = (packed.unpack(torch.float32) - rows).double().norm() / rows.double().norm()
        assert packed.loss(rows) == pytest.approx(float(error), rel=1e-5)
        assert packed.loss(rows) > 0


def test_int8_takes_a_quarter_of_the_bytes_and_a_scale_a_row():
    assert PackedRows.of(torch.randn(10, 64), "int8").num_bytes == 10 * (64 + 4)
    assert PackedRows.of(torch.randn(10, 64), "bfloat16").num_bytes == 10 * 128
    assert PackedRows.of(torch.randn(0, 64), "int8").num_bytes == 0


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_int8_refuses_what_it_has_no_place_for(odd):
    with pytest.raises(ValueError, match="finite"):
        PackedRows.of(torch.tensor([[1.0, odd]]), "int8")
