"""The parity of a whole model's fast parts, each judged by its own definition."""

from collections.abc import Collection

import torch

from fwpkm.bench.parity import Check, check_parity
from fwpkm.bench.parity_rule import check_delta_rule
from fwpkm.models.config import DecoderConfig


def check_model(
    config: DecoderConfig, checks: Collection[Check], *, device: torch.device, autocast: bool = False
) -> float:
    """Check a decoder's memories and its Gated DeltaNet, in float32 or, with `autocast`, in bfloat16.

    Raises:
        ParityError: If one differs from its definition; no time of the model is reported then.
    """
    dtype, worst = torch.bfloat16 if autocast else torch.float32, 0.0
    if config.fwpkm is not None and config.fwpkm_layers:
        worst = check_parity(checks, device=device, config=config.fwpkm, dtype=dtype, autocast=autocast)
    if config.gated_delta_net is not None and config.gated_delta_net.backend != "naive":
        chosen = config.gated_delta_net.backend
        worst = max(worst, check_delta_rule(device=device, dtype=dtype, backend=chosen))
    return worst
