"""The compiled loops of read and write weights."""

import math
from typing import no_type_check

from fwpkm.ops.jit import jit, jit_inline
from fwpkm.ops.rows import inner
from fwpkm.ops.spans import cut_range
from fwpkm.ops.threads import side_by_side


@jit
@no_type_check
def soften(first, last, part, score, temperature, w):
    """w = softmax(score / temperature) ."""
    tau = w.dtype.type(temperature)
    for t in range(first, last):
        best, total, out = score[t, 0] / tau, w.dtype.type(0), w[t]
        for j in range(out.shape[0]):
            out[j] = score[t, j] / tau
            best = max(best, out[j])
        for j in range(out.shape[0]):
            out[j] = math.exp(out[j] - best)
            total += out[j]
        for j in range(out.shape[0]):
            out[j] /= total


@jit_inline
@no_type_check
def norm_of(w, exact):
    """Return what a token's write weights are divided by: as the read weights add up to 1, never next to nothing."""
    return inner(w, w, w.shape[0]) if exact else w.dtype.type(1)


@jit
@no_type_check
def step(first, last, part, w, writing, counts, rate, exact, factor, places, out):
    """out_m = rate f_p w_t / (counts_m N)  for written token m, number t of all, with factor f at p = places_m."""
    for m in range(first, last):
        own = w[writing[m]]
        scale = w.dtype.type(rate) * factor[places[m]] / norm_of(own, exact)
        for j in range(own.shape[0]):
            out[m, j] = scale * own[j] / w.dtype.type(counts[m, j])


@jit
@no_type_check
def step_back(first, last, part, w, writing, counts, rate, exact, factor, places, d_step, dw, d_factor):
    """Add to dw what d_step wants of the read weights, and set what it wants of the factors."""
    for m in range(first, last):
        own, wanted, out = w[writing[m]], d_step[m], dw[writing[m]]
        norm = norm_of(own, exact)
        scale, along = w.dtype.type(rate) / norm, w.dtype.type(0)
        for j in range(own.shape[0]):
            along += wanted[j] * own[j] / w.dtype.type(counts[m, j])
        d_factor[places[m]] = scale * along
        scale *= factor[places[m]]
        back = w.dtype.type(2) * scale * along / norm if exact else w.dtype.type(0)
        for j in range(own.shape[0]):
            out[j] += scale * wanted[j] / w.dtype.type(counts[m, j]) - back * own[j]


@jit
@no_type_check
def soften_back(first, last, part, score, temperature, w, dw, d_temperature):
    """Turn dw into what it wants of the scores, and add up what it wants of the temperature."""
    tau, total = w.dtype.type(temperature), 0.0
    for t in range(first, last):
        own, out, mean = w[t], dw[t], w.dtype.type(0)
        for j in range(own.shape[0]):
            mean += own[j] * out[j]
        for j in range(own.shape[0]):
            out[j] = own[j] * (out[j] - mean) / tau
            total -= out[j] * score[t, j] / tau
    d_temperature[part] = total


@no_type_check
def weigh_all(score, temperature, writing, counts, rate, exact, factor, places, w, out, threads, fewest):
    """Take the read weights of all tokens, then the write weights of the written ones."""
    failed = side_by_side(soften, cut_range(score.shape[0], threads, fewest), (score, temperature, w))
    given = (w, writing, counts, rate, exact, factor, places)
    return failed | side_by_side(step, cut_range(out.shape[0], threads, fewest), (*given, out))


@no_type_check
def weigh_all_back(
    score,
    temperature,
    writing,
    counts,
    rate,
    exact,
    factor,
    places,
    w,
    d_step,
    dw,
    d_factor,
    d_temperature,
    threads,
    fewest,
):
    """Walk back: dw becomes the scores' gradient."""
    given = (w, writing, counts, rate, exact, factor, places, d_step)
    failed = side_by_side(step_back, cut_range(d_step.shape[0], threads, fewest), (*given, dw, d_factor))
    own = (score, temperature, w, dw, d_temperature)
    return failed | side_by_side(soften_back, cut_range(score.shape[0], threads, fewest), own)
