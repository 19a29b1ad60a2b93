"""Memories of several streams as one batch, and two memories of one stream as one memory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from fwpkm.memory.overlay import Overlay
from fwpkm.memory.state import FwPKMState
from fwpkm.memory.waiting import Waiting
from fwpkm.nested import unknown_name
from fwpkm.ops.addressing import key_squares

MergeRule = Literal["mean", "first", "second", "sum"]


def join_states(states: Sequence[FwPKMState]) -> FwPKMState:
    """Return one state whose streams are those of `states`, one after the other; the inverse of `select`.

    Raises:
        ValueError: If they are not of one layer, share a table among streams, or only some are frozen.
    """
    first = states[0]
    problems = []
    for i, state in enumerate(states):
        for name, same in (
            ("options", state.options == first.options),
            ("sub-keys' shape", state.keys.shape[1:] == first.keys.shape[1:]),
            ("base table", state.table.store.base is first.table.store.base),
            ("frozen", state.frozen == first.frozen),
        ):
            if not same:
                problems.append(f"states 0 and {i} differ in {name}")
        if state.is_shared:
            problems.append(f"the streams of state {i} share one table")
    if problems:
        raise ValueError("join_states: memories of one layer only can be a batch; " + "; ".join(problems))
    if len(states) == 1:
        return first
    return replace(
        first,
        keys=torch.cat([state.keys for state in states]),
        key_squares=torch.cat([state.key_squares for state in states]),
        table=Overlay.join([state.table for state in states]),
        waiting=Waiting.join([state.waiting for state in states]),
        tokens_seen=tuple(seen for state in states for seen in state.tokens_seen),
    )


def merge_states(a: FwPKMState, b: FwPKMState, rule: MergeRule = "mean") -> FwPKMState:
    r"""Make one memory of two that read different documents with the same layer.

    Streams are merged one by one. Waiting tokens whose targets are known are written first; the last ones, which
    wait for the next token, are left out, as they have no neighbour any more. A slot that one of the two wrote
    holds what that one wrote. A slot that both wrote holds, with V the base table:

        "mean"    (A + B) / 2                what both agree on stays
        "sum"     V + (A - V) + (B - V)      both changes in full: for documents that have little in common
        "first"   A        "second"   B      one of the two is right

    Sub-keys are averaged by "mean" and "sum", and taken from one of the two otherwise. A merge is an
    approximation in any case: each of the two wrote where its own sub-keys sent it.

    Raises:
        ValueError: For an unknown rule, or memories that are not of one layer or not of as many streams.
    """
    if rule not in get_args(MergeRule):
        raise ValueError(f"merge_states: {unknown_name('rule', rule, get_args(MergeRule))}")
    if a.num_streams != b.num_streams:
        raise ValueError(
            f"merge_states: both must have as many streams, got {a.num_streams} and {b.num_streams}; use select"
        )
    join_states((a.thaw(), b.thaw()))  # refuses what does not go together
    a, b = a.thaw().flush(), b.thaw().flush()
    keys = _one_of(a.keys, b.keys, rule) if rule in ("first", "second") else (a.keys + b.keys) / 2
    return replace(
        a,
        keys=keys,
        key_squares=key_squares(keys.detach(), a.options.score),
        table=_merge_tables(a.table, b.table, rule),
        waiting=Waiting.empty(a.num_streams, a.waiting.packed.flatten(0, 1)[:0]),
        tokens_seen=tuple(x + y for x, y in zip(a.tokens_seen, b.tokens_seen, strict=True)),
    )


def _merge_tables(a: Overlay, b: Overlay, rule: MergeRule) -> Overlay:
    own, other = a.written(), b.written()
    both = own[torch.isin(own, other)]
    only_b = other[~torch.isin(other, own)]
    left, right = a.gather(both), b.gather(both)
    if rule == "mean":
        rows = (left + right) / 2
    elif rule == "sum":
        rows = left + right - a.store.base_rows(both)
    else:
        rows = _one_of(left, right, rule)
    cells = torch.cat((both, only_b))
    return a.put(cells, torch.cat((rows, b.gather(only_b))), torch.ones_like(cells, dtype=torch.bool))


def _one_of(first: Tensor, second: Tensor, rule: MergeRule) -> Tensor:
    return first if rule == "first" else second
