"""What stands before every measurement: on its device, in its precision, by its backend, is the answer right?"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from fwpkm.bench.core_step import PAPER, core_inputs
from fwpkm.bench.judged import (
    STREAMS,
    TOKENS,
    Named,
    Unclear,
    by_definition,
    check_clear,
    in_float64,
    noting,
    small_layer,
    what_was_noted,
)
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.memory.state import FwPKMState
from fwpkm.ops.backend import name_backend, use_backend

Check = Literal["training", "core", "streaming", "decode"]
"""training: forward and backward of the layer. core: the same of the memory alone, from queries to answers.
streaming: prefill in pieces, in place. decode: token by token, with the writes in between."""
LAYER_CHECKS: tuple[Check, ...] = ("training", "streaming", "decode")

ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Relative norms of errors, several times those of correct arithmetic. One wrong token of all is 0.1."""
_OF_GRADIENTS = 4.0
"""How much more of a gradient's error is allowed: it adds up terms that cancel."""
_MOST_DRAWS = 20


class ParityError(RuntimeError):
    """A fast form gives something else than the definition; its speed means nothing."""


def check_parity(
    checks: Collection[Check],
    *,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    config: FwPKMConfig = PAPER,
    backend: str = "auto",
    autocast: bool = False,
) -> float:
    """Compare a layer like the one to be measured with the definition in float64, and return the worst error.

    Args:
        checks: What is to be measured.
        device: Where.
        dtype: Of hidden states and projections; for "core", of queries and values.
        config: Of the layer: its options and widths are kept, its table and chunks are made small.
        backend: What its operations run as.
        autocast: Whether `dtype` is that of products alone, as in training.

    Raises:
        ParityError: If a result differs by more than rounding in `dtype`, or in the table's precision.
    """
    where = torch.device(device)
    allowed = ALLOWED[torch.bfloat16 if config.table_dtype == "bfloat16" else dtype]
    worst = 0.0
    with use_backend(backend), torch.autocast(where.type, torch.bfloat16, enabled=autocast):
        for check in checks:
            errors = _first_clear(check, config, where, torch.float32 if autocast else dtype)
            what = f"{check} on {where} ({name_backend(where)}, {name_dtype(dtype)}, tables in {config.table_dtype})"
            refuse_errors(errors, allowed, what)
            worst = max(worst, *errors.values())
    return worst


def name_dtype(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def relative_errors(own: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the norm of each result's error over the norm of what it should be."""
    pairs = {name: (x.detach().double(), exact[name].detach()) for name, x in own.items()}
    return {name: float((x - y).norm() / y.norm().clamp_min(1e-30)) for name, (x, y) in pairs.items()}


def refuse_errors(errors: Mapping[str, float], allowed: float, what: str) -> None:
    """Raise ParityError if an error is not within what is `allowed`, NaN included."""
    for name, error in errors.items():
        most = allowed * (_OF_GRADIENTS if "gradient" in name else 1.0)
        if not error <= most:
            raise ParityError(
                f"bench: {what}: {name} differs from the definition by {error:.1e} (relative norm; {most:.0e} is "
                "allowed); no times reported"
            )


def _first_clear(
    check: Check, config: FwPKMConfig, device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    """Judge by the first draw in which rounding cannot choose other slots."""
    for seed in range(_MOST_DRAWS):
        kept = torch.promote_types(dtype, torch.float32) if check == "core" else dtype
        try:
            return relative_errors(*_CHECKS[check](small_layer(config, device, kept, seed), dtype, seed))
        except Unclear:
            continue
    raise RuntimeError(
        f"bench: {check}: none of {_MOST_DRAWS} draws keeps its slots apart by more than rounding"
    )


def _check_training(layer: FwPKM, dtype: torch.dtype, seed: int) -> tuple[Named, Named]:
    x = _hidden(layer, dtype, seed).requires_grad_()
    with noting(layer) as notes:
        y, state = layer(x)
    exact, wide = in_float64(layer), x.detach().double().requires_grad_()
    expected, y_exact, state_exact = by_definition(exact, wide, notes)
    own = {**what_was_noted(notes), "output": y, **_memory(state), **_gradients(layer, x, y)}
    return own, {**expected, **_memory(state_exact), **_gradients(exact, wide, y_exact)}


def _check_streaming(layer: FwPKM, dtype: torch.dtype, seed: int) -> tuple[Named, Named]:
    return _check_pieces(layer, _hidden(layer, dtype, seed), (21, 5, TOKENS - 26))


def _check_decode(layer: FwPKM, dtype: torch.dtype, seed: int) -> tuple[Named, Named]:
    return _check_pieces(layer, _hidden(layer, dtype, seed), (12, *[1] * (TOKENS - 12)))


def _check_pieces(layer: FwPKM, x: Tensor, sizes: Sequence[int]) -> tuple[Named, Named]:
    state: FwPKMState | None = None
    parts = []
    with torch.no_grad(), noting(layer) as notes:
        for piece in x.split(list(sizes), dim=1):
            y, state = layer(piece, state)
            parts.append(y)
    assert state is not None, "there are pieces"
    expected, _, state_exact = by_definition(in_float64(layer), x.double(), notes)
    own = {**what_was_noted(notes), "output": torch.cat(parts, dim=1), **_memory(state)}
    return own, {**expected, **_memory(state_exact)}


def _check_core(layer: FwPKM, dtype: torch.dtype, seed: int) -> tuple[Named, Named]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = core_inputs(layer.config, STREAMS, TOKENS)
    inputs = [x.detach().to(layer.initial_keys.device, dtype) for x in drawn]
    exact, (q, v, gate) = in_float64(layer), [x.double() for x in inputs]
    expected = _core(exact, [q, v, gate], literally=True)
    check_clear(exact, q, v, gate, expected["answers"])
    return _core(layer, inputs, literally=False), expected


def _core(layer: FwPKM, inputs: Sequence[Tensor], *, literally: bool) -> Named:
    leaves = [x.detach().requires_grad_() for x in inputs]
    out, state = layer.initial_state(STREAMS).advance(*leaves, by_definition=literally)
    grads = torch.autograd.grad(_loss(out) + state.table.dense().double().cos().sum(), leaves)
    names = (f"the gradient of {name}" for name in ("queries", "values", "gates"))
    return {"answers": out, **_memory(state), **dict(zip(names, grads, strict=True))}


_CHECKS: dict[Check, Callable[[FwPKM, torch.dtype, int], tuple[Named, Named]]] = {
    "training": _check_training,
    "core": _check_core,
    "streaming": _check_streaming,
    "decode": _check_decode,
}


def _hidden(layer: FwPKM, dtype: torch.dtype, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(STREAMS, TOKENS, layer.config.dim, generator=draw)
    return x.to(layer.initial_keys.device, dtype)


def _gradients(layer: FwPKM, x: Tensor, y: Tensor) -> Named:
    """Return the gradients of the input and of all slow weights of a projection together."""
    wanted = {"input": x, **{name: p for name, p in layer.named_parameters() if p.requires_grad}}
    grads = torch.autograd.grad(_loss(y), list(wanted.values()))
    parts: dict[str, list[Tensor]] = {}
    for name, grad in zip(wanted, grads, strict=True):
        parts.setdefault(f"the gradient of {name.split('_')[0]}", []).append(grad.to_dense().flatten())
    return {name: torch.cat(own) for name, own in parts.items()}


def _loss(y: Tensor) -> Tensor:
    return y.double().sin().sum()


def _memory(state: FwPKMState) -> Named:
    return {"sub-keys": state.keys, "table": state.table.dense()}
