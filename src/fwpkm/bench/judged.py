"""A small layer and what the definition in float64 makes of the very queries, values and gates that it made.

So no rounding of theirs chooses other slots; that of scores might, and a draw in which it could is not judged by.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.memory.state import FwPKMState
from fwpkm.ops.addressing import key_squares

Named = dict[str, Tensor]
Notes = list[tuple[Tensor | None, ...]]
STREAMS, TOKENS = 2, 43
_MOST_SUBKEYS, _CHUNK = 64, 8
_CLEAR_COORDINATES = 8
_NUDGE, _STEADY = 1e-5, 1e-3
_NOTED = ("queries", "values", "gates")


class Unclear(Exception):  # noqa: N818 - not an error
    """Rounding could choose other slots in this draw."""


def small_layer(config: FwPKMConfig, device: torch.device, dtype: torch.dtype, seed: int) -> FwPKM:
    """Make a layer of the widths and options of `config`, with few slots, short chunks and scores far apart."""
    small = replace(
        config,
        num_subkeys=max(config.topk, min(config.num_subkeys, _MOST_SUBKEYS)),
        chunk_size=max(config.lookahead, min(config.chunk_size, _CHUNK)),
        table_seed=seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = FwPKM(small)
    _set_apart(layer, torch.Generator().manual_seed(seed))
    return layer.to(device, dtype)


@torch.no_grad()
def _set_apart(layer: FwPKM, draw: torch.Generator) -> None:
    """Let a few coordinates count, as distances in hundreds of dimensions are all alike."""
    half = layer.config.key_dim // 2
    weight = torch.full((half,), 0.05)
    weight[torch.randperm(half, generator=draw)[:_CLEAR_COORDINATES]] = 1.0
    layer.initial_keys.copy_(torch.randn(layer.initial_keys.shape, generator=draw) * weight)
    layer.q_proj.weight.mul_(weight.repeat(2 * layer.config.num_heads)[:, None])


def in_float64(layer: FwPKM) -> FwPKM:
    """Copy a layer, with tables that round nothing."""
    exact = FwPKM(replace(layer.config, table_dtype="float32")).to(layer.initial_keys.device, torch.float64)
    exact.load_state_dict(layer.state_dict())
    if exact.initial_values is not None and layer.initial_values is not None:
        exact.initial_values.data = layer.initial_values.detach().double()
    return exact


@contextmanager
def noting(layer: FwPKM) -> Iterator[Notes]:
    """Note all queries, values and gates that the layer makes meanwhile."""
    notes: Notes = []
    project = layer.project

    def noted(x: Tensor) -> tuple[Tensor | None, ...]:
        made = project(x)
        notes.append(tuple(y if y is None else y.detach().clone() for y in made))
        return made

    layer.__dict__["project"] = noted
    try:
        yield notes
    finally:
        del layer.__dict__["project"]


def what_was_noted(notes: Notes) -> Named:
    """Name it, all pieces as one."""
    columns = zip(_NOTED, zip(*notes, strict=True), strict=True)
    return {
        name: torch.cat([x for x in parts if x is not None], dim=1)
        for name, parts in columns
        if None not in parts
    }


def by_definition(exact: FwPKM, x: Tensor, notes: Notes) -> tuple[Named, Tensor, FwPKMState]:
    """Carry out the definition on what was noted; gradients go through the exact layer's own projections.

    Raises:
        Unclear: If rounding could choose other slots.
    """
    with torch.autocast(x.device.type, enabled=False):
        ideal = {name: y for name, y in zip(_NOTED, exact.project(x), strict=True) if y is not None}
        noted = {
            name: y.double() + (ideal[name] - ideal[name].detach())
            for name, y in what_was_noted(notes).items()
        }
        q, v, gate = noted["queries"], noted["values"], noted.get("gates")
        weight = gate if exact.config.gate_weighted_loss else None
        v_hat, state = exact.initial_state(STREAMS).advance(q, v, weight, by_definition=True)
        check_clear(exact, q, v, weight, v_hat)
        y = exact.fuse(v_hat, v, gate, x, None)
    return {**ideal, "output": y}, y, state


@torch.no_grad()
def check_clear(exact: FwPKM, q: Tensor, v: Tensor, gate: Tensor | None, v_hat: Tensor) -> None:
    """Raise Unclear if the definition itself answers otherwise after a nudge like float32's rounding of scores."""
    state, draw = exact.initial_state(STREAMS), torch.Generator().manual_seed(0)
    nudge = 1 + _NUDGE * torch.randn(state.keys.shape, generator=draw, dtype=q.dtype).to(q.device)
    keys = state.keys * nudge
    state = replace(state, keys=keys, key_squares=key_squares(keys, state.options.score))
    moved, _ = state.advance(q.detach(), v, gate, by_definition=True)
    if not float((moved - v_hat).norm()) <= _STEADY * float(v_hat.norm()):
        raise Unclear
