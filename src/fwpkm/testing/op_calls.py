"""Which custom operators some code calls, and with what: so that each can be checked on real arguments."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

OpCall = tuple[Any, tuple[Any, ...], dict[str, Any]]


class _Recorder(TorchDispatchMode):
    def __init__(self, calls: list[OpCall]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "fwpkm":
            self._calls.append((func, tree_map(_own_copy, args), tree_map(_own_copy, kwargs or {})))
        return func(*args, **(kwargs or {}))


def _own_copy(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


def record_op_calls(run: Callable[[], object]) -> list[OpCall]:
    """Return every call of a `fwpkm::` operator while `run` runs, forward and backward: operator, args, kwargs."""
    calls: list[OpCall] = []
    with _Recorder(calls):
        run()
    return calls


def check_op_calls(calls: list[OpCall]) -> set[str]:
    """Run `torch.library.opcheck` on every call, with and without gradients where there are some; name the ops."""
    for op, args, kwargs in calls:
        torch.library.opcheck(op, args, kwargs)
        if not op.name().endswith("_backward"):
            wanted = tree_map(_with_gradient, args)
            torch.library.opcheck(op, wanted, kwargs)
    return {op.name() for op, _, _ in calls}


def _with_gradient(x: Any) -> Any:
    return x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
