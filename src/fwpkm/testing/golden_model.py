"""Golden cases of whole models: numbers that the authors' release computed in float32, in training mode."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fwpkm.models.decoder import DecoderOutput
from fwpkm.models.release import from_release, release_gradients, release_tensors
from fwpkm.testing.golden_layer import relative_error

TOLERANCE = 2e-5
"""Of logits and loss: norm of the difference over norm."""
GRADIENT_TOLERANCE = 5e-4
"""Of every gradient, and of the fast weights after the batch."""


def model_errors(case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[tuple[str, float, float]]:
    """Train one step on one case; return (result, error, tolerance) rows."""
    weights = {n.removeprefix("state."): x for n, x in tensors.items() if n.startswith("state.")}
    model = from_release(case["config"], weights).train()
    ids = tensors["input_ids"]
    output = model(ids, trace=True)
    loss = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    rows = [
        ("logits", relative_error(output.logits, tensors["logits"]), TOLERANCE),
        ("loss", relative_error(loss, tensors["loss"].squeeze()), TOLERANCE),
    ]
    rows += _trace_rows(output, tensors)
    for prefix, found in (("final.", release_tensors(model)), ("grad.", release_gradients(model))):
        for name in sorted(n for n in tensors if n.startswith(prefix)):
            got = found.get(name.removeprefix(prefix))
            error = float("inf") if got is None else relative_error(got, tensors[name])
            rows.append((name, error, GRADIENT_TOLERANCE))
    return rows


def _trace_rows(output: DecoderOutput, tensors: Mapping[str, Tensor]) -> list[tuple[str, float, float]]:
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
