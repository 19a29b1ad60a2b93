"""What `torch.compile` is told: which calls it does not look into, and which it asks once."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(fn: Callable[P, R]) -> Callable[P, R]:
    """Have `torch.compile` end its graph before `fn`, call `fn` as it stands, and begin the next graph behind it."""

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            from fwpkm.ops.uncompiled import call_uncompiled

            return call_uncompiled(fn, *args, **kwargs)
        return fn(*args, **kwargs)

    return _with_code_of_its_own(call)


def decided(fn: Callable[P, R]) -> Callable[P, R]:
    """Have `torch.compile` ask `fn` once a graph: its arguments and the grad mode decide what it says."""

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            from fwpkm.ops.uncompiled import decide

            return decide(fn, *args, **kwargs)
        return fn(*args, **kwargs)

    return _with_code_of_its_own(call)


def _with_code_of_its_own(call: Callable[P, R]) -> Callable[P, R]:
    """Have the compiler count forms of `call` by themselves: it keeps eight of each piece of code, whose ever it is."""
    call.__code__ = call.__code__.replace(co_name=call.__name__)
    return call
