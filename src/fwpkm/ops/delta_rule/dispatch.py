"""One entry for the gated delta rule; the backend is the caller's choice, or "auto"."""

import importlib.metadata
import importlib.util
import logging
import re
from functools import cache
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fwpkm.ops.compiling import decided
from fwpkm.ops.delta_rule.naive import gated_delta_rule_naive
from fwpkm.ops.delta_rule.release import gated_delta_rule_release
from fwpkm.ops.delta_rule.torch import gated_delta_rule_torch

logger = logging.getLogger(__name__)

Backend = Literal["naive", "torch", "fla"]

Arithmetic = Literal["accurate", "release"]
"""In which order sums are taken: for the least error, or as in the authors' release, error for error."""


def gated_delta_rule(
    q: Float[Tensor, "B T H Dk"],
    keys: Float[Tensor, "B T H Dk"],
    v: Float[Tensor, "B T H Dv"],
    g: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    *,
    state: Float[Tensor, "B H Dk Dv"] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
    backend: Backend | Literal["auto"] = "auto",
    arithmetic: Arithmetic = "accurate",
) -> tuple[Float[Tensor, "B T H Dv"], Float[Tensor, "B H Dk Dv"]]:
    r"""Run  S_t = exp(g_t) S_{t-1} + k_t beta_t (v_t - k_t^T exp(g_t) S_{t-1}),  o_t = q_t^T S_t .

    Gated Delta Networks (arXiv:2412.06464v3, Eq. 10), S transposed. Queries and keys are divided by
    sqrt(|x|^2 + 1e-6), queries also by sqrt(Dk).

    Args:
        q: Queries.
        keys: Where to write.
        v: What to write there.
        g: Log decay, at most 0.
        beta: Share of the old content that is replaced, 0 to 1.
        state: S before the first token; None is all zeros.
        mask: False where a token is padding, which leaves S alone; None is no padding.
        backend: "naive" (the definition), "torch" (chunked), "fla" (CUDA kernels of
            flash-linear-attention, half precision), or "auto" (fla where it can run, otherwise torch).
        arithmetic: How backend "torch" computes. In float32 the gradient of `g` may be rounding noise for the
            most part; "release" has the noise of the authors' release, "accurate" has less.

    Returns:
        Outputs in the dtype of `v` and S after the last token in float32 or wider. No argument is
        edited; S may share memory with `state` only where there are no tokens.

    Raises:
        ValueError: If backend or arithmetic is unknown.
        RuntimeError: If the named backend cannot run here.
    """
    if arithmetic not in ("accurate", "release"):
        raise ValueError(f"gated_delta_rule: arithmetic must be accurate or release, got {arithmetic!r}")
    wide = torch.float64 if v.dtype == torch.float64 else torch.float32
    if state is None:
        state = v.new_zeros(v.shape[0], v.shape[2], q.shape[-1], v.shape[-1], dtype=wide)
    chosen = resolve_backend(backend, q.device, v.dtype)
    # Products of the state with half-precision operands would round S itself at every chunk.
    with torch.autocast(q.device.type, enabled=False):
        if chosen == "naive":
            mask = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if mask is None else mask
            q, keys, wide_v, g, beta = (x.to(wide) for x in (q, keys, v, g, beta))
            out, state = gated_delta_rule_naive(q, keys, wide_v, g, beta, state.to(wide), mask)
            return out.to(v.dtype), state
        if mask is not None:
            g, beta = (x.masked_fill(~mask[..., None], 0.0) for x in (g, beta))
        if chosen == "fla" and q.shape[1] > 0:
            from fwpkm.ops.delta_rule.fla import gated_delta_rule_fla

            return gated_delta_rule_fla(q.to(v.dtype), keys.to(v.dtype), v, g, beta, state)
        q, keys, wide_v, g, beta = (x.to(wide) for x in (q, keys, v, g, beta))
        # A single token is added up in one order only, and none not at all.
        exact = arithmetic == "release" and q.shape[1] > 1
        chunked = gated_delta_rule_release if exact else gated_delta_rule_torch
        out, state = chunked(q, keys, wide_v, g, beta, state.to(wide))
        return out.to(v.dtype), state


@decided
def resolve_backend(
    requested: Backend | Literal["auto"], device: torch.device, dtype: torch.dtype
) -> Backend:
    """Turn the user's wish into a backend. Only "auto" may choose; a named backend must run.

    Raises:
        ValueError: If the backend is unknown.
        RuntimeError: If the named backend cannot run here.
    """
    if requested not in ("auto", "naive", "torch", "fla"):
        raise ValueError(f"gated_delta_rule: backend must be auto, naive, torch or fla, got {requested!r}")
    if requested in ("naive", "torch"):
        return requested
    missing = _why_not_fla(device, dtype)
    if requested == "fla" and missing:
        raise RuntimeError(f"gated_delta_rule: backend='fla': {missing}. Use backend='torch' or 'auto'.")
    chosen: Backend = "torch" if missing else "fla"
    if requested == "auto":
        _announce(chosen, missing)
    return chosen


def _why_not_fla(device: torch.device, dtype: torch.dtype) -> str | None:
    # Looked for, not imported: importing fla on a machine without CUDA breaks transformers.
    if device.type != "cuda":
        return f"its kernels need a CUDA device, got {device.type!r}"
    if importlib.util.find_spec("fla") is None:
        return "the package 'flash-linear-attention' is not installed"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"its kernels need half precision, got {dtype}"
    if (
        torch.is_grad_enabled()
        and torch.cuda.get_device_capability(device)[0] == 9
        and _miscompiles_on_hopper()
    ):
        return (
            f"Triton {_triton_version()} compiles its backward pass wrongly for Hopper GPUs (flash-linear-attention "
            "#640); Triton 3.7.1 does not, and comes with torch 2.12.1"
        )
    return None


def _miscompiles_on_hopper() -> bool:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", _triton_version())
    return found is not None and (3, 4, 0) <= tuple(map(int, found.groups())) < (3, 7, 1)


@cache
def _triton_version() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"


@cache
def _announce(chosen: Backend, missing: str | None) -> None:
    logger.info("gated_delta_rule: backend auto -> %s%s", chosen, f" ({missing})" if missing else "")
