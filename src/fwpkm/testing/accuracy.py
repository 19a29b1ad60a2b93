"""Tolerance that comes from the arithmetic instead of from tuning."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def assert_accurate(name: str, fast: Tensor, baseline: Tensor, oracle: Tensor, factor: float = 2.0) -> None:
    """Pass if `fast` errs at most `factor` times as much as plain torch in the same dtype.

    `oracle` is the definition in float64 and `baseline` the definition in the dtype of `fast`, so the
    tolerance follows the dtype and the shape; nobody tunes it per test. Errors are root mean squares; where
    the baseline happens to be exact, the rounding unit of the dtype is allowed instead.

    Raises:
        AssertionError: With the shapes, the non-finite numbers, or the worst element.
    """
    _same_kind(name, fast, baseline, oracle)
    if not fast.numel():
        return
    difference, plain = fast.detach().double() - oracle.detach().double(), baseline.detach().double() - oracle
    floor = torch.finfo(fast.dtype).eps * _rms(oracle)
    allowed, error = factor * max(_rms(plain), floor), _rms(difference)
    if not error <= allowed:
        raise AssertionError(
            f"{name}: RMS error {error:.2e} > {allowed:.2e} ({factor:g} x plain torch in {fast.dtype}); "
            f"{worst_element(fast, oracle)}"
        )


def assert_all_accurate(
    fast: Mapping[str, Tensor],
    baseline: Mapping[str, Tensor],
    oracle: Mapping[str, Tensor],
    factor: float = 2.0,
) -> None:
    """Do the same for every named result; all three must name the same ones."""
    if not fast.keys() == baseline.keys() == oracle.keys():
        raise AssertionError(f"results differ: {[*fast]}, {[*baseline]} and {[*oracle]}")
    for name, value in fast.items():
        assert_accurate(name, value, baseline[name], oracle[name], factor)


def rounding_noise(
    run: Callable[..., Mapping[str, Tensor]], *inputs: Tensor, repeats: int = 3, seed: int = 0
) -> dict[str, float]:
    """Measure how far results move if every input moves by about one rounding unit of its dtype.

    No arithmetic in that dtype can be held to less: where a result is ill conditioned, two correct ways to
    compute it differ by as much, times a small factor for the roundings on the way.

    Args:
        run: Takes the inputs and names its results.
        inputs: Of floats.
        repeats: Draws, of which the largest movement counts; one alone may hit a blind direction.
        seed: Of the draws.

    Returns:
        The norm of the largest movement of every result.
    """
    draw = torch.Generator().manual_seed(seed)
    exact = run(*inputs)
    moved = [run(*(_nudged(x, draw) for x in inputs)) for _ in range(repeats)]
    return {name: max((m[name] - x).norm().item() for m in moved) for name, x in exact.items()}


def _nudged(x: Tensor, draw: torch.Generator) -> Tensor:
    unit = torch.finfo(x.dtype).eps * torch.randn(x.shape, generator=draw, dtype=torch.float64)
    return (x.detach().double() * (1 + unit.to(x.device))).to(x.dtype)


def worst_element(got: Tensor, expected: Tensor) -> str:
    """Say where two tensors of one shape differ most, and what stands there."""
    difference = (got.detach().double() - expected.detach().double()).abs()
    at = tuple(int(i) for i in torch.unravel_index(difference.argmax(), difference.shape))
    return f"worst at {list(at)}: got {got[at].item():.6g}, expected {expected[at].item():.6g}"


def _same_kind(name: str, fast: Tensor, baseline: Tensor, oracle: Tensor) -> None:
    if not fast.shape == baseline.shape == oracle.shape:
        raise AssertionError(
            f"{name}: shapes differ, fast {tuple(fast.shape)}, baseline {tuple(baseline.shape)}, "
            f"oracle {tuple(oracle.shape)}"
        )
    if oracle.dtype != torch.float64 or fast.dtype != baseline.dtype:
        raise AssertionError(
            f"{name}: the oracle must be float64 and the others of one dtype, got oracle {oracle.dtype}, "
            f"fast {fast.dtype}, baseline {baseline.dtype}"
        )
    for who, x in (("fast", fast), ("baseline", baseline), ("oracle", oracle)):
        if not bool(x.isfinite().all()):
            bad = (~x.isfinite()).nonzero()
            raise AssertionError(
                f"{name}: {who} has {len(bad)} NaN or infinite numbers of {x.numel()}, the first at {bad[0].tolist()}"
            )


def _rms(x: Tensor) -> float:
    return x.detach().double().square().mean().sqrt().item()
