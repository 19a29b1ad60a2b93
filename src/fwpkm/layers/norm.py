"""Root-mean-square normalisation: zero-centred in blocks, plain, or gated (Gated DeltaNet)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fwpkm.ops import units


def check_norm(where: str, dim: int, eps: float) -> None:
    """Raise ValueError unless `dim` and `eps` can normalise anything."""
    problems = []
    if dim < 1:
        problems.append(f"dim must be at least 1, got dim={dim}")
    if not eps > 0:
        problems.append(f"eps must be above 0, got eps={eps}; 1e-6 is usual")
    if problems:
        raise ValueError(f"{where}: " + "; ".join(problems))


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision to float32; leave float32 and float64 alone."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unit_rms(x: Float[Tensor, "*batch D"], eps: float) -> Float[Tensor, "*batch D"]:
    """Scale the last dimension to a root mean square of 1; `eps` is added to the mean square."""
    return F.rms_norm(x, x.shape[-1:], eps=eps)


def scaled_units(
    x: Float[Tensor, "*batch D"], eps: float, *weights: Float[Tensor, " D"]
) -> tuple[Float[Tensor, "*batch D"], ...]:
    """Return  unit_rms(x) (1 + weight)  for every weight, computed in float32 or wider, in the dtype of `x`."""
    is_wide = x.dtype not in (torch.float16, torch.bfloat16)
    if (is_wide or units.reads_narrow(x)) and units.can_normalise(x, *weights):
        return units.scaled_units(x, eps, *weights)
    wide, own = at_least_float32(x), [at_least_float32(weight) for weight in weights]
    if units.can_normalise(wide, *own):
        out = units.scaled_units(wide, eps, *own)
    else:
        unit = unit_rms(wide, eps)
        out = tuple(unit * (1.0 + weight) for weight in own)
    return tuple(y.to(x.dtype) for y in out)


class _Norm(nn.Module):
    """A scale per channel, which starts at one number."""

    start: float

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        check_norm(type(self).__name__, dim, eps)
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Let the weight be what it starts as."""
        nn.init.constant_(self.weight, self.start)

    def extra_repr(self) -> str:
        """Show width and eps when the module is printed."""
        return f"{self.weight.numel()}, eps={self.eps}"


class RMSNorm(_Norm):
    """Normalise by the root mean square and scale by 1 + weight, computed in float32 or wider.

    The weight starts at zero, so weight decay pulls the layer towards plain normalisation
    (zero-centred RMSNorm, as in Qwen3-Next).

    Args:
        dim: Width of the last dimension, at least 1.
        eps: Added to the mean square, above 0.
    """

    start = 0.0

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Normalise `x`; the dtype of `x` is kept."""
        return scaled_units(x, self.eps, self.weight)[0]


class PlainRMSNorm(_Norm):
    """Normalise by the root mean square and scale by a weight that starts at one, in float32 or wider.

    Args:
        dim: Width of the last dimension, at least 1.
        eps: Added to the mean square, above 0.
    """

    start = 1.0

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Normalise `x`; the dtype of `x` is kept."""
        y = unit_rms(at_least_float32(x), self.eps) * at_least_float32(self.weight)
        return y.to(x.dtype)


class GatedRMSNorm(_Norm):
    """Normalise, scale by a weight that starts at one, then gate: weight * unit_rms(x) * silu(gate).

    The output stage of Gated DeltaNet (arXiv:2412.06464, Fig. 1).

    Args:
        dim: Width of the last dimension, at least 1.
        eps: Added to the mean square, above 0.
    """

    start = 1.0

    def forward(
        self, x: Float[Tensor, "*batch D"], gate: Float[Tensor, "*batch D"]
    ) -> Float[Tensor, "*batch D"]:
        """Normalise `x` and gate it; the dtype of `x` is kept."""
        y = unit_rms(at_least_float32(x), self.eps) * at_least_float32(self.weight)
        return (y * F.silu(at_least_float32(gate))).to(x.dtype)
