"""What layers are given, checked in words before it fails in numbers."""

import torch
from torch import Tensor

from fwpkm.ops.compiling import uncompiled


def check_hidden(
    where: str, x: Tensor, dim: int, mask: Tensor | None, *, refuse_nonfinite: bool = False
) -> None:
    """Raise ValueError if hidden states [B, T, dim] or their mask [B, T] do not fit."""
    if x.ndim != 3 or x.shape[-1] != dim:
        raise ValueError(f"{where}: x must be [B, T, dim={dim}], got x {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{where}: x must hold floating-point numbers, got {x.dtype}")
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(
            f"{where}: mask must be bool [B, T] = [{x.shape[0]}, {x.shape[1]}], True for real tokens, got "
            f"mask {tuple(mask.shape)} of {mask.dtype}"
        )
    if refuse_nonfinite:
        _refuse_nonfinite(where, x, mask)


def check_state(where: str, state: object, kind: type, what: str = "state") -> None:
    """Raise TypeError if what came before is of another kind."""
    if not isinstance(state, kind):
        hint = "; name a mask: mask=..." if isinstance(state, Tensor) else ""
        raise TypeError(
            f"{where}: {what} must be a {kind.__name__} or None, got {type(state).__name__}{hint}"
        )


@uncompiled  # an error that depends on numbers
def _refuse_nonfinite(where: str, x: Tensor, mask: Tensor | None) -> None:
    real = x if mask is None else x[mask]
    if not bool(real.isfinite().all()):
        raise ValueError(
            f"{where}: x must be finite, got {int((~real.isfinite()).sum())} NaN or infinite numbers "
            f"of {real.numel()}"
        )
