"""From a scan's scores to its read and write weights, with gradients in closed form."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.ops.apply import apply
from fwpkm.ops.backend import runs_compiled

_FEWEST_NUMBERS = 1 << 13
"""Weights that are worth a thread."""


def can_weigh(score: Float[Tensor, "R J"], *factors: Float[Tensor, "..."] | None) -> bool:
    """Return whether `weigh` is there for scores and factors like these."""
    if torch.compiler.is_compiling() or not score.numel() or not runs_compiled(score):
        return False
    given = [factor for factor in factors if factor is not None]
    return all(factor.dtype == score.dtype and factor.device == score.device for factor in given)


def weigh(
    score: Float[Tensor, "R J"],
    temperature: Float[Tensor, ""] | float,
    writing: Int[Tensor, " Tw"],
    counts: Int[Tensor, "Tw J"],
    factor: Float[Tensor, " P"] | None,
    places: Int[Tensor, " Tw"],
    *,
    rate: float,
    exact: bool,
) -> tuple[Float[Tensor, "R J"], Float[Tensor, "Tw J"]]:
    r"""Return read weights and write weights; differentiable once, only where `can_weigh` says so.

        w_t = softmax(score_t / temperature) ;   a_mj = rate f_p w_tj / (R_mj N)

    for written token m with t = writing_m, factor f at p = places_m, read counts R, and N = sum_j w_tj^2 if `exact`,
    else 1  (FwPKM, arXiv:2601.00671v2, memorisation step; "exact" is ours, see `CoreOptions.write_rule`).

    Args:
        score: Kept scores of all tokens that read, of all heads together.
        temperature: Divides them.
        writing: The tokens that are written, none twice.
        counts: How often the rows of each written token are read, at least 1.
        factor: Of all tokens: gate and mask; None is 1.
        places: Where in `factor` each written token's is, no place twice.
        rate: Step size.
        exact: Whether the writes of a token add up to its target.
    """
    if not isinstance(temperature, Tensor):
        temperature = score.new_tensor(temperature)
    return apply(_Weigh, score, temperature, writing, counts, factor, places, float(rate), exact)


def _factors(score: Tensor, factor: Tensor | None, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors and where each written token's is, ones in their order if there are none."""
    if factor is not None:
        return factor, places
    return score.new_ones(places.shape), torch.arange(places.shape[0])


class _Weigh(torch.autograd.Function):
    @staticmethod
    def forward(
        score: Tensor,
        temperature: Tensor,
        writing: Tensor,
        counts: Tensor,
        factor: Tensor | None,
        places: Tensor,
        rate: float,
        exact: bool,
    ) -> tuple[Tensor, Tensor]:
        from fwpkm.ops.threads import drive
        from fwpkm.ops.weigh import loops

        w, step = score.new_empty(score.shape), score.new_empty(counts.shape)
        how = (writing, counts, rate, exact, *_factors(score, factor, places))
        drive(loops.weigh_all, score, float(temperature), *how, w, step, *_sharing(score))
        return w, step

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        score, temperature, writing, counts, factor, places, ctx.rate, ctx.exact = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(score, temperature, writing, counts, factor, places, output[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dw: Tensor | None, d_step: Tensor | None) -> tuple[Tensor | None, ...]:
        from fwpkm.ops.threads import drive
        from fwpkm.ops.weigh import loops

        score, temperature, writing, counts, factor, places, w = ctx.saved_tensors
        ds = torch.zeros_like(w) if dw is None else dw.clone(memory_format=torch.contiguous_format)
        if d_step is None:
            d_step = score.new_zeros(counts.shape)
        f, p = _factors(score, factor, places)
        d_factor = torch.zeros_like(f, memory_format=torch.contiguous_format)
        d_temperature = torch.zeros(torch.get_num_threads(), dtype=torch.float64)
        given = (score, float(temperature), writing, counts, ctx.rate, ctx.exact, f, p, w, d_step)
        drive(loops.weigh_all_back, *given, ds, d_factor, d_temperature, *_sharing(score))
        own = d_temperature.sum().to(temperature.dtype).view(temperature.shape)
        return ds, own, None, None, None if factor is None else d_factor, None, None, None


def _sharing(score: Tensor) -> tuple[int, int]:
    """Return how many threads there are, and how many tokens are worth one."""
    return torch.get_num_threads(), max(1, _FEWEST_NUMBERS // score.shape[1])
