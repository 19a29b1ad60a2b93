"""What some code would launch on a CUDA device, counted without one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime.interpreter import GridExecutor

_LAUNCH_NOTHING = ("empty", "new_empty", "detach", "alias", "_unsafe_view", "lift_fresh", "_reshape_alias")


class _Launches(TorchDispatchMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(_LAUNCH_NOTHING):
            self._found[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def count_launches() -> Iterator[Counter[str]]:
    """Count by name the operators of PyTorch that do more than view a tensor, and Triton's kernels, interpreted.

    An operator of this package counts as one, and its kernels besides. A matrix product may be several launches.
    """
    found: Counter[str] = Counter()
    real = GridExecutor.__call__

    def launch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        found[executor.fn.__name__] += 1
        with _disable_current_modes():  # the interpreter copies what it is given
            return real(executor, *args, **kwargs)

    with patch.object(GridExecutor, "__call__", launch), _Launches(found):
        yield found
