"""A state in tensors that stay where they are, so that one token's step is the same operations every time.

Between two writes of its memories, a state of fixed size changes by nothing else than the numbers in its
tensors. What Python would count (tokens seen, tokens waiting) is left as it was, and added up afterwards.
"""

from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from fwpkm.layers.kv import KVState
from fwpkm.memory.chunks import ChunkedState
from fwpkm.memory.line import CountedLine
from fwpkm.memory.recurrent import RecurrentState
from fwpkm.ops.core.schedule import count_before_write
from fwpkm.state import iter_tensors, map_parts, parts_of

S = TypeVar("S")
FastWeightState = RecurrentState | ChunkedState
"""States of which tokens wait for a write; between writes, nothing else of them changes."""


def tokens_before_write(state: object, most: int) -> int:
    """Count the tokens, at most `most`, that any stream of a state may still read before a memory in it writes."""
    if isinstance(state, FastWeightState):
        return most if state.frozen else min([most, *_room(state)])
    return min([most, *(tokens_before_write(part, most) for part in parts_of(state))])


def have_same_shapes(a: object, b: object) -> bool:
    """Tell whether two states' tensors are alike, so that one can be put in the other's place."""
    alike = [(x.shape, x.dtype, x.device) for x in iter_tensors(a)]
    return alike == [(x.shape, x.dtype, x.device) for x in iter_tensors(b)]


def fixed(state: S, room: int) -> S:
    """Return a copy of a state for `room` steps of one token each, whose own tensors `put_back` may edit.

    What memories have written is shared with `state`, and only read.
    """
    if isinstance(state, FastWeightState):
        if state.frozen:
            return state
        return replace(state, waiting=CountedLine(state.waiting, max(state.waiting.counts, default=0) + room))
    if isinstance(state, KVState):
        # Streams that may differ are numbered by the device; no stream will have seen more than that.
        return _copied(state, longest=state.longest + room + 1)
    if isinstance(state, Tensor):
        return state.clone()  # type: ignore[return-value]
    return map_parts(state, lambda part: fixed(part, room))


def put_back(into: object, after: object) -> None:
    """Write what a step made of a fixed state into its tensors."""
    for old, new in zip(iter_tensors(into), iter_tensors(after), strict=True):
        if new is not old:
            old.copy_(new)


def plain(now: S, before: S, steps: int) -> S:
    """Return the state that `now`, once `fixed(before, ...)`, has become after `steps` steps; shares nothing."""
    if isinstance(now, FastWeightState) and isinstance(before, FastWeightState):
        if now.frozen:
            return before
        line, seen = now.waiting, tuple(count + steps for count in before.tokens_seen)
        assert isinstance(line, CountedLine), "made by `fixed`"
        return replace(before, waiting=line.plain(steps), tokens_seen=seen)
    if isinstance(now, KVState) and isinstance(before, KVState):
        return _copied(now, shortest=before.shortest + steps, longest=before.longest + steps)
    if isinstance(now, Tensor):
        return now.clone()  # type: ignore[return-value]
    others = iter(parts_of(before))
    return map_parts(now, lambda part: plain(part, next(others), steps))


def _room(state: FastWeightState) -> list[int]:
    options = state.options if isinstance(state, RecurrentState) else state.chunking
    if isinstance(state, RecurrentState) and state.options.needs_definition is not None:
        return [0]
    return [count_before_write(count, options) for count in state.waiting.counts]


def _copied(state: KVState, **counts: int) -> Any:
    tensors = {name: getattr(state, name).clone() for name in ("keys", "v", "tokens_seen")}
    return replace(state, room=None, **tensors, **counts)  # type: ignore[arg-type]  # each is what its name says
