"""Normalised vectors, one a row: root mean square, length or z-score, each forward and backward in one pass."""

from fwpkm.ops.units.dispatch import (
    KINDS,
    can_normalise,
    mixed_units,
    normalised,
    scaled_units,
    scaled_units_and_dots,
)

__all__ = ["KINDS", "can_normalise", "mixed_units", "normalised", "scaled_units", "scaled_units_and_dots"]
