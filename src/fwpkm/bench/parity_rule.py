"""Whether Gated DeltaNet's rule, which is timed beside the memory, gives what its definition says."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fwpkm.bench.judged import STREAMS, TOKENS, Named
from fwpkm.bench.parity import ALLOWED, name_dtype, refuse_errors, relative_errors
from fwpkm.ops.delta_rule import gated_delta_rule


def check_delta_rule(*, device: torch.device | str, dtype: torch.dtype, backend: Any = "auto") -> float:
    """Return the worst error of the rule: all tokens forward and backward, then one more.

    Raises:
        ParityError: If it differs by more than rounding in `dtype`.
    """
    given = _inputs(torch.device(device), dtype)
    errors = relative_errors(_results(given, backend), _results([x.double() for x in given], "naive"))
    refuse_errors(
        errors, ALLOWED[dtype], f"the gated delta rule on {device} ({backend}, {name_dtype(dtype)})"
    )
    return max(errors.values())


def _inputs(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    normal = [torch.randn(STREAMS, TOKENS, 2, 64, generator=draw) for _ in range(3)]
    decay = F.logsigmoid(torch.randn(STREAMS, TOKENS, 2, generator=draw))
    strength = torch.rand(STREAMS, TOKENS, 2, generator=draw)
    return [x.to(device, dtype) for x in (*normal, decay, strength)]


def _results(given: list[Tensor], backend: Any) -> Named:
    """Run the rule. The decay's gradient is left out: in float32 it is rounding noise for the most part."""
    leaves = [x.detach().requires_grad_() for x in given]
    out, state = gated_delta_rule(*leaves, backend=backend)
    grads = torch.autograd.grad(out.double().sin().sum() + state.double().cos().sum(), leaves)
    q, keys, v, _, strength = grads
    with torch.no_grad():
        first = [x[:, :1].contiguous() for x in given]
        one, _ = gated_delta_rule(*first, state=state.detach().clone(), backend=backend)
    named = {"queries": q, "keys": keys, "values": v, "strengths": strength}
    gradients = {f"the gradient of {name}": grad for name, grad in named.items()}
    return {"output": out, "state": state, "a single token": one, **gradients}
