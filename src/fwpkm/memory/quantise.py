"""Rows of a table in fewer bytes, and what that loses."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fwpkm.nested import unknown_name

RowFormat = Literal["exact", "float32", "bfloat16", "int8"]
ROW_FORMATS: tuple[RowFormat, ...] = get_args(RowFormat)
_LARGEST_INT8 = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRows:
    """Rows as they are kept: as numbers of some precision, or as int8 with one scale a row."""

    data: Shaped[Tensor, "P Dv"]
    scale: Float[Tensor, " P"] | None = None
    """What each int8 row is multiplied with; None where `data` holds the numbers themselves."""

    @classmethod
    def of(cls, rows: Float[Tensor, "P Dv"], form: RowFormat) -> "PackedRows":
        """Pack `rows`; "exact" keeps their own precision, and may share their memory.

        Raises:
            ValueError: For an unknown format, or for numbers that int8 has no place for.
        """
        if form not in ROW_FORMATS:
            raise ValueError(f"PackedRows: {unknown_name('row format', form, ROW_FORMATS)}")
        if form == "exact":
            return cls(data=rows)
        if form != "int8":
            return cls(data=rows.to(torch.float32 if form == "float32" else torch.bfloat16))
        return cls._of_int8(rows)

    @classmethod
    def _of_int8(cls, rows: Tensor) -> "PackedRows":
        if not bool(rows.isfinite().all()):
            raise ValueError("PackedRows: int8 holds finite numbers only, got inf or nan; use 'exact'")
        scale = (
            rows.abs().amax(-1).float() / _LARGEST_INT8
            if rows.shape[1]
            else rows.new_zeros(len(rows)).float()
        )
        # The largest entry of a tiny row can round its scale to zero; such a row is zero.
        data = torch.where(scale[:, None] > 0, rows / scale[:, None], 0).round_()
        return cls(data=data.clamp_(-_LARGEST_INT8, _LARGEST_INT8).to(torch.int8), scale=scale)

    def unpack(self, dtype: torch.dtype) -> Float[Tensor, "P Dv"]:
        """Return the rows as numbers of `dtype`."""
        return (
            self.data.to(dtype) if self.scale is None else self.data.to(dtype) * self.scale[:, None].to(dtype)
        )

    def loss(self, rows: Float[Tensor, "P Dv"]) -> float:
        """Measure how far these rows are from `rows`: root of the squared error over the squared rows."""
        if self.data.dtype == rows.dtype:
            return 0.0
        error = (self.unpack(torch.float64) - rows).square().sum()
        return float((error / rows.double().square().sum().clamp_min(1e-300)).sqrt())

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = [self.data] if self.scale is None else [self.data, self.scale]
        return sum(x.numel() * x.element_size() for x in tensors)
