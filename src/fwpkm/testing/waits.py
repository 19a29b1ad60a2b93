"""Where some code makes the host wait for its device, counted without one."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SOURCE = str(Path(__file__).parents[1])
_BETWEEN = (__file__, "/torch/", "/jaxtyping/", "beartype")
"""Whose frames may lie between a caller and what is counted."""
_READ = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__")
"""Methods that read a tensor's numbers."""
_COUNTED = (
    "nonzero",
    "masked_select",
    "unique",
    "unique_consecutive",
    "equal",
    "allclose",
    "bincount",
    "argwhere",
)
"""Functions, methods too, whose result's size or value depends on the numbers."""
_SENT = ("tensor", "as_tensor", "from_numpy")
"""Functions that send numbers of Python's to the device."""


@contextmanager
def count_waits() -> Iterator[Counter[str]]:
    """Count by place, as file:function, what in this package would wait for a CUDA device.

    Operators of this package are looked into (but for indexing), kernels in Triton's interpreter are not. Call the
    code once before, so that what it keeps from call to call is there.
    """
    found: Counter[str] = Counter()
    under_way: list[str] = []

    def counting(real: Callable[..., Any], waits: Callable[..., bool]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            place = None if under_way or not waits(*args, **kwargs) else _caller()
            if place is None:
                return real(*args, **kwargs)
            found[place] += 1
            under_way.append(place)  # PyTorch may do it by another counted function
            try:
                return real(*args, **kwargs)
            finally:
                under_way.pop()

        return call

    with ExitStack() as patches:
        for owner, names, waits in (
            (Tensor, _READ + _COUNTED, _always),
            (torch, _COUNTED + _SENT, _always),
            (Tensor, ("repeat_interleave",), _repeats_by_contents),
        ):
            for name in names:
                if hasattr(owner, name):
                    patches.enter_context(patch.object(owner, name, counting(getattr(owner, name), waits)))
        patches.enter_context(_Indexing(counting))
        yield found


class _Indexing(TorchFunctionMode):
    """Counts indexing by contents, except within operators.

    Patched, `__getitem__` would leave tensors a sequence for good to CPython, and `torch.tensor` would no longer take
    lists of single numbers.
    """

    def __init__(self, counting: Callable[..., Callable[..., Any]]) -> None:
        super().__init__()
        self._counting = counting

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in ("__getitem__", "__setitem__"):
            func = self._counting(func, _indexes_by_contents)
        return func(*args, **(kwargs or {}))


def _always(*args: Any, **kwargs: Any) -> bool:
    return True


def _indexes_by_contents(x: Tensor, index: Any, *value: Any) -> bool:
    """Return whether `index` has a mask, whose trues must be counted, or a list, which must be sent."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(
        isinstance(part, list) or (isinstance(part, Tensor) and part.dtype == torch.bool) for part in parts
    )


def _repeats_by_contents(
    x: Tensor, repeats: Any, *args: Any, output_size: int | None = None, **kwargs: Any
) -> bool:
    return isinstance(repeats, Tensor) and output_size is None


def _caller() -> str | None:
    """Name the function of this package that called PyTorch; None for others, such as Triton's interpreter."""
    frame: Any = sys._getframe(1)
    while frame is not None and any(part in frame.f_code.co_filename for part in _BETWEEN):
        frame = frame.f_back
    file = "" if frame is None else frame.f_code.co_filename
    return f"{file[len(_SOURCE) + 1 :]}:{frame.f_code.co_name}" if file.startswith(_SOURCE) else None
