"""Compiled loops over one row each; the larger kernels are made of them."""

from typing import Any, no_type_check

import numpy as np

from fwpkm.ops.jit import chosen_by_type, holds_bfloat16, jit


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


@jit
@no_type_check
def rounded_bits(x):
    """Return the bits of the nearest bfloat16, the even one of two as near; NaN stays NaN."""
    bits = np.float32(x).view(np.uint32)
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(0x7FC0) if x != x else np.uint16(np.uint32(bits + up) >> np.uint32(16))


@jit
@no_type_check
def copy_row(x, out):
    """out = x."""
    for d in range(out.shape[0]):
        out[d] = x[d]


@jit
@no_type_check
def keep_row(x, out):
    """out = x , which may have to be rounded to bfloat16."""
    for d in range(out.shape[0]):
        out[d] = kept(x[d], out)


@jit
@no_type_check
def subtract_rows(x, y, out):
    """out = x - y."""
    for d in range(out.shape[0]):
        out[d] = x[d] - y[d]


@jit
@no_type_check
def combine_rows(x, c, y, out):
    """out = x + c y."""
    for d in range(out.shape[0]):
        out[d] = x[d] + c * y[d]


@jit
@no_type_check
def scale_row(c, x, out):
    """out = c x."""
    for d in range(out.shape[0]):
        out[d] = c * x[d]


@jit
@no_type_check
def add_row(c, x, out):
    """out += c x."""
    for d in range(out.shape[0]):
        out[d] += c * x[d]


@jit
@no_type_check
def add_kept_row(c, x, out):
    """out += c x , which may be of bfloat16."""
    for d in range(out.shape[0]):
        out[d] += c * wide(x[d])


@jit
@no_type_check
def add_four_rows(c0, x0, c1, x1, c2, x2, c3, x3, out):
    """out += c0 x0 + c1 x1 + c2 x2 + c3 x3: four rows on their way from memory at once."""
    for d in range(out.shape[0]):
        out[d] += c0 * x0[d] + c1 * x1[d] + c2 * x2[d] + c3 * x3[d]


@jit
@no_type_check
def inner(x, y):
    """Return x . y."""
    total = x.dtype.type(0)
    for d in range(x.shape[0]):
        total += x[d] * y[d]
    return total


@jit
@no_type_check
def inner_four(x, y0, y1, y2, y3):
    """Return x . y0, x . y1, x . y2 and x . y3."""
    zero = x.dtype.type(0)
    t0, t1, t2, t3 = zero, zero, zero, zero
    for d in range(x.shape[0]):
        t0 += x[d] * y0[d]
        t1 += x[d] * y1[d]
        t2 += x[d] * y2[d]
        t3 += x[d] * y3[d]
    return t0, t1, t2, t3


@jit
@no_type_check
def inner_rows(x, ids, rows, out):
    """out_j = x . rows[ids_j]."""
    j, k = 0, ids.shape[0]
    while j + 4 <= k:
        four = inner_four(x, rows[ids[j]], rows[ids[j + 1]], rows[ids[j + 2]], rows[ids[j + 3]])
        out[j], out[j + 1], out[j + 2], out[j + 3] = four
        j += 4
    while j < k:
        out[j] = inner(x, rows[ids[j]])
        j += 1


@jit
@no_type_check
def weighted_rows(w, ids, rows, out):
    """out = sum_j w_j rows[ids_j]."""
    out[:] = 0
    add_weighted_rows(w, ids, rows, out)


@jit
@no_type_check
def add_weighted_rows(w, ids, rows, out):
    """out += sum_j w_j rows[ids_j]."""
    j, k = 0, ids.shape[0]
    while j + 4 <= k:
        add_four_rows(
            w[j],
            rows[ids[j]],
            w[j + 1],
            rows[ids[j + 1]],
            w[j + 2],
            rows[ids[j + 2]],
            w[j + 3],
            rows[ids[j + 3]],
            out,
        )
        j += 4
    while j < k:
        add_row(w[j], rows[ids[j]], out)
        j += 1
