"""Golden cases of the layer's core: numbers that the authors' release computed in float64."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fwpkm.memory.state import FwPKMState
from fwpkm.ops.core.naive import CoreTrace, core_naive
from fwpkm.ops.core.options import CoreOptions, KeyLoss

TOLERANCE = 1e-6
"""Norm of the difference over norm; the release computes the entropy in float32."""

_NO_EFFECT = ("mem_k_dim", "mem_v_dim", "mem_heads", "mem_n_subkeys", "fp32_fw")
_ONLY = {"optimizer_type": "sgd", "loss_type": "mse"}


def release_options(layer: Mapping[str, Any], *, chunk: int, streaming: bool) -> CoreOptions:
    """Translate the release's layer options, with its own defaults for those not named.

    Raises:
        ValueError: At an option that the release does not have, or a value that it has no arithmetic for.
    """
    known = {**_DEFAULTS, **dict.fromkeys(_NO_EFFECT), **_ONLY}
    problems = [f"unknown option {name!r}" for name in layer if name not in known]
    problems += [f"{n} must be {v!r}, got {layer[n]!r}" for n, v in _ONLY.items() if layer.get(n, v) != v]
    if problems:
        raise ValueError("golden layer case: " + "; ".join(problems))
    get = {**_DEFAULTS, **layer}.__getitem__
    return CoreOptions(
        topk=get("mem_topk"),
        chunk_size=chunk,
        lookahead=get("lookahead"),
        score="dot" if get("qk_score_type") == "dot_product" else get("qk_score_type"),
        weights=get("score_nonlinear"),
        write_rule="release",
        value_lr=get("learning_rate"),
        key_lr=get("learning_rate"),
        key_loss=_key_loss(get("addr_loss"), get("addr_loss_weight"), get("mem_grad_to_values_only")),
        addressing_weight=get("addr_loss_weight"),
        border="moved" if streaming else "dropped",
        weight_decay=get("weight_decay"),
        clip_gradients=get("grad_clip"),
    )


_DEFAULTS: dict[str, Any] = {
    "mem_topk": 8,
    "lookahead": 1,
    "qk_score_type": "idw",
    "score_nonlinear": "softmax",
    "score_temperature": 1.0,
    "learning_rate": 1.0,
    "weight_decay": 0.0,
    "mem_grad_to_values_only": True,
    "grad_clip": False,
    "addr_loss": "me",
    "addr_loss_weight": 1.0,
}


def _key_loss(addr_loss: str | None, weight: float, values_only: bool) -> KeyLoss:
    if addr_loss not in (None, "me"):
        raise ValueError(f"golden layer case: addr_loss must be None or 'me', got addr_loss={addr_loss!r}")
    entropy = addr_loss == "me" and weight != 0
    if values_only:
        return "entropy" if entropy else "none"
    return "both" if entropy else "memory"


def layer_errors(case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Run one case by the definition and by the fast form; return each result's relative error."""
    layer = case["layer"]
    options = release_options(layer, chunk=case["chunk"], streaming=case["splits"] is not None)
    temperature = {**_DEFAULTS, **layer}["score_temperature"]
    x = {
        name: tensors[name].double().clone().requires_grad_(name in ("q", "v", "gates"))
        for name in ("q", "v", "gates", "mask")
        if name in tensors
    }
    heads = layer.get("mem_heads", 1)
    x["q"] = x["q"].detach().unflatten(-1, (heads, -1)).requires_grad_()
    keys = tensors["keys0"].double().unflatten(0, (heads, 2, -1)).transpose(0, 1)
    values = tensors["values0"].double()
    state = FwPKMState.fresh(
        keys,
        values,
        options,
        num_streams=x["q"].shape[0],
        value_dim=values.shape[1],
        temperature=torch.tensor(temperature, dtype=torch.float64),
        shared=True,
    )
    errors: dict[str, float] = {}
    if case["splits"] is None:
        trace = _by_definition(x, keys, values, options, temperature)
        _compare("definition", trace.output, trace.keys, trace.values, x, tensors, errors)
        _compare_reads(trace, tensors, errors)
        out, state = state.advance(x["q"], x["v"], x.get("gates"), _bool(x.get("mask")))
        _compare("fast", out, state.keys[0], state.table.dense()[0], x, tensors, errors)
    for name, splits in {} if case["splits"] is None else _cuts(case["splits"], case["tokens"]).items():
        out, after = _stream(state, x, splits)
        _compare(name, out, after.keys[0], after.table.dense()[0], {}, tensors, errors)
    return errors


def _bool(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask > 0


def _cuts(splits: list[int], tokens: int) -> dict[str, list[int]]:
    """Cut the stream as the case does, then otherwise: the numbers must not depend on it."""
    return {"stream": splits, "in one call": [tokens], "token by token": [1] * tokens}


def _by_definition(
    x: Mapping[str, Tensor], keys: Tensor, values: Tensor, options: CoreOptions, temperature: float
) -> CoreTrace:
    return core_naive(
        x["q"],
        x["v"],
        x.get("gates"),
        keys,
        values,
        options,
        temperature=temperature,
        write_mask=x.get("mask"),
    )


def _stream(state: FwPKMState, x: Mapping[str, Tensor], splits: list[int]) -> tuple[Tensor, FwPKMState]:
    out = []
    with torch.no_grad():
        pieces = {name: t.split(splits, dim=1) for name, t in x.items()}
        for i in range(len(splits)):
            part = {name: split[i] for name, split in pieces.items()}
            y, state = state.advance(part["q"], part["v"], part.get("gates"), _bool(part.get("mask")))
            out.append(y)
    return torch.cat(out, dim=1), state


def _compare(
    form: str,
    out: Tensor,
    keys: Tensor,
    values: Tensor,
    x: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    errors: dict[str, float],
) -> None:
    release_keys = keys.transpose(0, 1).flatten(0, 2)  # head-major, then half
    for name, got in (("output", out), ("keys1", release_keys), ("values1", values)):
        errors[f"{form}: {name}"] = relative_error(got, expected[name])
    wanted = [name for name in ("q", "v", "gates") if name in x]
    if not wanted or "do" not in expected:
        return
    grads = torch.autograd.grad(out, [x[name] for name in wanted], expected["do"].double(), allow_unused=True)
    for name, grad in zip(wanted, grads, strict=True):
        given = expected[f"grad_{name}"]
        got = torch.zeros_like(given) if grad is None else grad.reshape(given.shape)
        errors[f"{form}: grad_{name}"] = relative_error(got, given)


def _compare_reads(trace: CoreTrace, expected: Mapping[str, Tensor], errors: dict[str, float]) -> None:
    if "weights" in expected:
        errors["definition: weights"] = relative_error(
            trace.weights.reshape(expected["weights"].shape), expected["weights"]
        )
    if "slots" in expected:
        same = trace.slots.reshape(expected["slots"].shape) == expected["slots"]
        errors["definition: slots"] = 1.0 - same.double().mean().item()


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm (the norm itself where nothing is expected)."""
    difference = (got.detach().double() - expected.double()).norm()
    return (difference / expected.double().norm().clamp_min(torch.finfo(torch.float64).tiny)).item()
