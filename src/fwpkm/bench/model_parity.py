"""The parity of a whole model's fast parts, each judged by its own definition."""

from collections.abc import Collection

import torch

from fwpkm.bench.parity import Check, ParityError, check_parity
from fwpkm.bench.parity_rule import check_delta_rule
from fwpkm.models.cache import DecoderCache
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder

_MOST_OFF = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Share of all gradients' length that compiled blocks may differ by; of a loss, a tenth of it."""


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


def compile_checked(model: Decoder, ids: torch.Tensor, *, autocast: bool = False) -> None:
    """Compile a model's blocks.

    Raises:
        ParityError: If they give another loss or other gradients than before.
    """
    loss, gradient = _loss_and_gradient(model, ids, autocast)
    model.compile_blocks()
    own_loss, own_gradient = _loss_and_gradient(model, ids, autocast)
    most = _MOST_OFF[torch.bfloat16 if autocast else torch.float32]
    off = float((own_gradient - gradient).norm() / gradient.norm())
    if not (off <= most and abs(own_loss - loss) <= 0.1 * most * abs(loss)):
        raise ParityError(
            f"compiled blocks: loss {own_loss} instead of {loss}, gradients off by {off:.2g} of their length, at most "
            f"{most:g} may be"
        )


@torch.no_grad()
def decode_compiled(model: Decoder, token: torch.Tensor, cache: DecoderCache | None) -> None:
    """Compile a model's blocks for decoding.

    Raises:
        ParityError: If they answer `token` [B, 1] otherwise than before.
    """
    expected = model(token, cache).logits
    model.compile_blocks()
    off = float((model(token, cache).logits - expected).norm() / expected.norm())
    if not off <= _MOST_OFF[torch.float32]:
        raise ParityError(f"compiled blocks: logits off by {off:.2g} of their length")


def _loss_and_gradient(model: Decoder, ids: torch.Tensor, autocast: bool) -> tuple[float, torch.Tensor]:
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=autocast):
        loss, _ = model.loss(ids)
    loss.backward()
    gradient = torch.cat([p.grad.to_dense().flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return loss.item(), gradient
