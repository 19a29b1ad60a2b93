"""Bins of positions whose borders are powers of two."""

import numpy as np
from jaxtyping import Int


def octaves(length: int) -> Int[np.ndarray, " E"]:
    """Return the borders 0, 1, 2, 4, ... up to the first that is not below `length`, which stands for it."""
    borders = [0, 1]
    while borders[-1] < length:
        borders.append(2 * borders[-1])
    return np.array([*borders[:-1], max(length, 1)])


def bin_of(position: Int[np.ndarray, " T"], borders: Int[np.ndarray, " E"]) -> Int[np.ndarray, " T"]:
    """Return the bin of each position: borders[i] <= position < borders[i + 1]."""
    return np.searchsorted(borders, position, side="right") - 1
