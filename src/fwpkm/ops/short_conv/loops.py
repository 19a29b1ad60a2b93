"""The compiled loops of the short convolution."""

from typing import no_type_check

from fwpkm.ops.jit import jit, jit_inline


@jit
@no_type_check
def convolve(first, last, part, x, taps, out):
    """out_t = sum_i taps_i x_{t + i}  for rows [first, last) of all streams' outputs."""
    T = out.shape[1]
    for row in range(first, last):
        b, t = row // T, row % T
        y = out[b, t]
        y[:] = 0
        for i in range(taps.shape[0]):
            add_product(taps[i], x[b, t + i], y)


@jit
@no_type_check
def convolve_back(first, last, part, x, taps, dy, dx, d_taps):
    """dx_s = sum_i taps_i dy_{s - i} ;  d_taps_i += dy_t x_{t + i} , for rows [first, last) of all streams' inputs."""
    S, T, own = x.shape[1], dy.shape[1], d_taps[part]
    for row in range(first, last):
        b, s = row // S, row % S
        out = dx[b, s]
        out[:] = 0
        for i in range(taps.shape[0]):
            if 0 <= s - i < T:
                add_product(taps[i], dy[b, s - i], out)
                add_product(x[b, s], dy[b, s - i], own[i])


@jit_inline
@no_type_check
def add_product(x, y, out):
    """out += x y."""
    for d in range(out.shape[0]):
        out[d] += x[d] * y[d]
