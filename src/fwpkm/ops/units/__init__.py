"""Normalised vectors, one a row: root mean square, length or z-score, each forward and backward in one pass."""

from fwpkm.ops.units.constants import KINDS
from fwpkm.ops.units.operation import (
    can_gate,
    can_normalise,
    gated_units,
    mixed_units,
    normalised,
    reads_narrow,
    scaled_units,
    scaled_units_and_dots,
)

__all__ = [
    "KINDS",
    "can_gate",
    "can_normalise",
    "gated_units",
    "mixed_units",
    "normalised",
    "reads_narrow",
    "scaled_units",
    "scaled_units_and_dots",
]
