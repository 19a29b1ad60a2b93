"""Calls that `torch.compile` does not look into. Imported while something is compiled: it loads the whole compiler."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@torch.compiler.disable(  # type: ignore[untyped-decorator]
    reason="fwpkm: which rows a memory keeps depends on what it reads, and where a cache goes on, on what else does; "
    "compile without fullgraph=True, which gives a graph before each of these and one behind it"
)
def call_uncompiled(fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `fn` as it stands."""
    return fn(*args, **kwargs)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def decide(fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `fn` while a graph is made, which keeps the answer."""
    return fn(*args, **kwargs)
