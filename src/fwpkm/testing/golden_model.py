"""Golden cases of whole models: numbers that the authors' release computed in float32, in training mode."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fwpkm.models.decoder import DecoderOutput
from fwpkm.models.release import ReleaseDecoder, from_release, release_gradients, release_tensors
from fwpkm.testing.accuracy import rounding_noise
from fwpkm.testing.golden_layer import relative_error

TOLERANCE = 2e-5
"""Of logits and loss: norm of the difference over norm."""
GRADIENT_TOLERANCE = 5e-4
"""Of every gradient, and of the fast weights after the batch."""
NOISE_FACTOR = 4.0
"""How many times its own rounding noise a gradient may be off where that is more.

Gradients of Gated DeltaNet's `A_log` and `dt_bias` may be sums that cancel to nothing: where every weight moves by
half a rounding unit, the release's own move by 0.1 to 5%. Two correct programs then differ by as much.
"""

Row = tuple[str, float, float]


def model_errors(
    case: Mapping[str, Any], tensors: Mapping[str, Tensor], *, strict: bool = False
) -> list[Row]:
    """Train one step on one case; return (result, error, tolerance) rows.

    Args:
        case: The release's config, under "config".
        tensors: The case's weights, tokens and results.
        strict: Whether to hold ill-conditioned gradients, too, to `GRADIENT_TOLERANCE`.
    """
    weights = {n.removeprefix("state."): x for n, x in tensors.items() if n.startswith("state.")}
    model, ids = from_release(case["config"], weights).train(), tensors["input_ids"]
    output, loss = _step(model, ids)
    rows = [
        ("logits", relative_error(output.logits, tensors["logits"]), TOLERANCE),
        ("loss", relative_error(loss, tensors["loss"].squeeze()), TOLERANCE),
        *_trace_rows(output, tensors),
        *_weight_rows("final.", release_tensors(model), tensors),
    ]
    gradients = _weight_rows("grad.", release_gradients(model), tensors)
    if not strict and any(error > tolerance for _, error, tolerance in gradients):
        gradients = _allow_noise(gradients, gradient_noise(case["config"], weights, ids), tensors)
    return rows + gradients


def gradient_noise(config: Mapping[str, Any], weights: Mapping[str, Tensor], ids: Tensor) -> dict[str, float]:
    """Return by how much (norms) gradients move if every weight moves by one rounding unit."""
    embedding = weights["model.embed_tokens.weight"]
    tied = {n for n in weights if n == "lm_head.weight" and torch.equal(weights[n], embedding)}
    names = [name for name in weights if name not in tied]

    def run(*nudged: Tensor) -> dict[str, Tensor]:
        model = from_release(config, dict(zip(names, nudged, strict=True))).train()
        _step(model, ids)
        return release_gradients(model)

    return rounding_noise(run, *(weights[name] for name in names))


def _step(model: ReleaseDecoder, ids: Tensor) -> tuple[DecoderOutput, Tensor]:
    output = model(ids, trace=True)
    loss = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    return output, loss


def _weight_rows(prefix: str, found: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[Row]:
    rows = []
    for name in sorted(n for n in tensors if n.startswith(prefix)):
        got = found.get(name.removeprefix(prefix))
        error = float("inf") if got is None else relative_error(got, tensors[name])
        rows.append((name, error, GRADIENT_TOLERANCE))
    return rows


def _allow_noise(rows: list[Row], noise: Mapping[str, float], tensors: Mapping[str, Tensor]) -> list[Row]:
    allowed = []
    for name, error, tolerance in rows:
        size = tensors[name].double().norm().item()
        moved = NOISE_FACTOR * noise.get(name.removeprefix("grad."), 0.0)
        # An error of infinity is a gradient that is not there, which no noise explains.
        allowed.append((name, error, max(tolerance, moved / size) if size else tolerance))
    return allowed


def _trace_rows(output: DecoderOutput, tensors: Mapping[str, Tensor]) -> list[Row]:
    traces = [trace for trace in output.traces if trace is not None]
    rows = []
    if "gates" in tensors:
        gates = torch.stack([trace.gate for trace in traces if trace.gate is not None], dim=2)
        rows.append(("gates", relative_error(gates.view_as(tensors["gates"]), tensors["gates"]), TOLERANCE))
    if "slots" in tensors:
        slots = torch.stack([trace.slots for trace in traces if trace.slots is not None], dim=2)
        rows.append(("slots", _share_missed(slots.view_as(tensors["slots"]), tensors["slots"]), TOLERANCE))
    return rows


def _share_missed(got: Tensor, expected: Tensor) -> float:
    """Return how many of the expected slots were not read, whatever their order among equals."""
    found = (expected[..., :, None] == got[..., None, :]).any(-1)
    return 1.0 - found.double().mean().item()
