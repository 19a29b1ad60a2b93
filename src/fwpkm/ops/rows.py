"""Compiled loops over one row each; the larger kernels are made of them.

A row is an array or a pointer (`fwpkm.ops.pointers`), so its width is given.
"""

from typing import Any, no_type_check

import numpy as np

from fwpkm.ops.jit import chosen_by_type, holds_bfloat16, jit_inline, number_type
from fwpkm.ops.pointers import pointer_to


def wide(x: Any) -> Any:
    """Return a number to compute with, whether it is one or the bits of a bfloat16."""
    raise NotImplementedError("wide: known to compiled loops only")


@chosen_by_type(wide)
@no_type_check
def _(x):
    if holds_bfloat16(x):
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: x


def kept(x: Any, rows: Any) -> Any:
    """Return a float32 or a float64 as the rows keep it: as it is, or rounded to the bits of a bfloat16."""
    raise NotImplementedError("kept: known to compiled loops only")


@chosen_by_type(kept)
@no_type_check
def _(x, rows):
    return (lambda x, rows: rounded_bits(x)) if holds_bfloat16(rows.dtype) else (lambda x, rows: x)


def zero_of(row: Any) -> Any:
    """Return the zero of a row's numbers."""
    raise NotImplementedError("zero_of: known to compiled loops only")


@chosen_by_type(zero_of)
@no_type_check
def _(row):
    zero = number_type(row)(0)
    return lambda row: zero


@jit_inline
@no_type_check
def rounded_bits(x):
    """Return the bits of the nearest bfloat16, the even one of two as near; NaN stays NaN."""
    bits = np.float32(x).view(np.uint32)
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(0x7FC0) if x != x else np.uint16(np.uint32(bits + up) >> np.uint32(16))


@jit_inline
@no_type_check
def clear_row(out, width):
    """out = 0."""
    for d in range(width):
        out[d] = 0


@jit_inline
@no_type_check
def copy_row(x, out, width):
    """out = x."""
    for d in range(width):
        out[d] = x[d]


@jit_inline
@no_type_check
def keep_row(x, out, width):
    """out = x , which may have to be rounded to bfloat16."""
    for d in range(width):
        out[d] = kept(x[d], out)


@jit_inline
@no_type_check
def subtract_rows(x, y, out, width):
    """out = x - y."""
    for d in range(width):
        out[d] = x[d] - y[d]


@jit_inline
@no_type_check
def combine_rows(x, c, y, out, width):
    """out = x + c y."""
    for d in range(width):
        out[d] = x[d] + c * y[d]


@jit_inline
@no_type_check
def scale_row(c, x, out, width):
    """out = c x."""
    for d in range(width):
        out[d] = c * x[d]


@jit_inline
@no_type_check
def add_row(c, x, out, width):
    """out += c x."""
    for d in range(width):
        out[d] += c * x[d]


@jit_inline
@no_type_check
def add_kept_row(c, x, out, width):
    """out += c x , which may be of bfloat16."""
    for d in range(width):
        out[d] += c * wide(x[d])


@jit_inline
@no_type_check
def add_four_rows(c0, x0, c1, x1, c2, x2, c3, x3, out, width):
    """out += c0 x0 + c1 x1 + c2 x2 + c3 x3: four rows on their way from memory at once."""
    for d in range(width):
        out[d] += c0 * x0[d] + c1 * x1[d] + c2 * x2[d] + c3 * x3[d]


@jit_inline
@no_type_check
def inner(x, y, width):
    """Return x . y."""
    total = zero_of(x)
    for d in range(width):
        total += x[d] * y[d]
    return total


@jit_inline
@no_type_check
def inner_combined(x, y, c, z, width):
    """Return x . (y + c z)."""
    total = zero_of(x)
    for d in range(width):
        total += x[d] * (y[d] + c * z[d])
    return total


@jit_inline
@no_type_check
def inner_four(x, y0, y1, y2, y3, width):
    """Return x . y0, x . y1, x . y2 and x . y3."""
    zero = zero_of(x)
    t0, t1, t2, t3 = zero, zero, zero, zero
    for d in range(width):
        t0 += x[d] * y0[d]
        t1 += x[d] * y1[d]
        t2 += x[d] * y2[d]
        t3 += x[d] * y3[d]
    return t0, t1, t2, t3


@jit_inline
@no_type_check
def inner_rows(x, ids, rows, first, out, width):
    """out_j = x . rows[first + ids_j] , rows a contiguous array of such a width."""
    j, k = 0, ids.shape[0]
    while j + 4 <= k:
        y0, y1, y2, y3 = four_rows(ids, j, rows, first, width)
        out[j], out[j + 1], out[j + 2], out[j + 3] = inner_four(x, y0, y1, y2, y3, width)
        j += 4
    while j < k:
        out[j] = inner(x, pointer_to(rows, (first + ids[j]) * width), width)
        j += 1


@jit_inline
@no_type_check
def add_weighted_rows(w, ids, rows, first, out, width):
    """out += sum_j w_j rows[first + ids_j] , rows a contiguous array of such a width."""
    j, k = 0, ids.shape[0]
    while j + 4 <= k:
        x0, x1, x2, x3 = four_rows(ids, j, rows, first, width)
        add_four_rows(w[j], x0, w[j + 1], x1, w[j + 2], x2, w[j + 3], x3, out, width)
        j += 4
    while j < k:
        add_row(w[j], pointer_to(rows, (first + ids[j]) * width), out, width)
        j += 1


@jit_inline
@no_type_check
def four_rows(ids, j, rows, first, width):
    """Return pointers to rows[first + ids_j] and those of the three ids behind."""
    return (
        pointer_to(rows, (first + ids[j]) * width),
        pointer_to(rows, (first + ids[j + 1]) * width),
        pointer_to(rows, (first + ids[j + 2]) * width),
        pointer_to(rows, (first + ids[j + 3]) * width),
    )
