"""What every layer's state has in common: it is a value, passed in and returned, never edited in place."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
S = TypeVar("S", bound="State")


def parts_of(value: object) -> tuple[Any, ...]:
    """Return the parts of a tuple or a dataclass; anything else, a tensor too, has none."""
    if isinstance(value, tuple):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return tuple(getattr(value, f.name) for f in fields(value))
    return ()


def map_parts(value: T, fn: Callable[[Any], Any]) -> T:
    """Rebuild a tuple or a dataclass of what `fn` makes of its parts; anything else is kept as it is."""
    if isinstance(value, tuple):
        return tuple(fn(item) for item in value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: fn(getattr(value, f.name)) for f in fields(value)})
    return value


def map_tensors(value: T, fn: Callable[[Tensor], Tensor]) -> T:
    """Apply `fn` to every tensor in a tree of dataclasses and tuples; everything else is kept as it is."""
    if isinstance(value, Tensor):
        return fn(value)  # type: ignore[return-value]
    return map_parts(value, lambda part: map_tensors(part, fn))


def iter_tensors(value: object) -> Iterator[Tensor]:
    """Walk through every tensor in a tree of dataclasses and tuples."""
    if isinstance(value, Tensor):
        yield value
    for part in parts_of(value):
        yield from iter_tensors(part)


class State(ABC):
    """Fast weights and waiting tokens of one layer after some tokens of B streams.

    Subclasses are frozen dataclasses whose tensors keep streams in their first dimension.
    """

    def detach(self: S) -> S:
        """Cut the graph, keeping the numbers: truncated backpropagation at this point."""
        return map_tensors(self, Tensor.detach)

    def to(self: S, device: torch.device | str) -> S:
        """Return the same state on `device`; the original stays where it is."""
        return map_tensors(self, lambda x: x.to(device))

    @abstractmethod
    def select(self: S, streams: Tensor) -> S:
        """Return the states of `streams` [int64, any length], repeated or reordered as asked (beam search)."""

    @property
    def num_bytes(self) -> int:
        """Bytes that this state needs by itself, not counting what it shares with the model."""
        return sum(x.numel() * x.element_size() for x in iter_tensors(self))
