"""Which form of the operations runs. Only "auto" chooses, and it says what it chose."""

import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "torch", "numba", "triton"]
"""torch: plain PyTorch, on any device. numba: compiled loops on the CPU, in float32 and float64. triton: kernels on a
CUDA device, or, with TRITON_INTERPRET=1, interpreted on the CPU.

A named backend carries out addressing, scan and answers itself or raises; "auto" may put them together of several,
and says so once. Numbering, sorting and fetching rows are PyTorch's in all of them. So are addressing's sums under
`torch.use_deterministic_algorithms(True)`, with "triton" by name too: that mode asks for a fixed order above all, and
this is the only such form that there is on a GPU.
"""

_OLDEST_TRITON = (3, 6)
"""The oldest that is tested; 3.4 has no products in float64."""
_TRITON_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

logger = logging.getLogger(__name__)
_wanted = "auto"


def set_backend(backend: str) -> None:
    """Choose the form of all operations of this process; "auto" takes the fastest that runs.

    Raises:
        ValueError: If there is no such backend.
        RuntimeError: If it cannot run here; "auto" and "torch" always can.
    """
    global _wanted
    if backend not in get_args(Backend):
        raise ValueError(
            f"set_backend: backend must be one of {', '.join(get_args(Backend))}, got {backend!r}"
        )
    if backend == "numba" and not _has_numba():
        raise RuntimeError(f"set_backend: backend='numba' cannot run: {_why_no_numba()}")
    if backend == "triton" and not _has_triton():
        raise RuntimeError(f"set_backend: backend='triton' cannot run: {why_no_triton()}")
    if backend == "triton" and not (torch.cuda.is_available() or interprets_triton()):
        raise RuntimeError(
            "set_backend: backend='triton' needs a CUDA device, and PyTorch finds none; use backend='auto' or "
            "'torch' (TRITON_INTERPRET=1, set before the start, interprets the kernels on a CPU, for tests)"
        )
    _wanted = backend


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Choose the form of all operations of this process for a while."""
    before = _wanted
    set_backend(backend)
    try:
        yield
    finally:
        set_backend(before)


def runs_compiled(x: Tensor) -> bool:
    """Return whether compiled loops are to work on tensors like `x`.

    Raises:
        RuntimeError: If they were asked for by name and cannot.
    """
    if _wanted in ("torch", "triton"):
        return False
    fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if _wanted == "numba" and not fits:
        raise RuntimeError(
            f"backend='numba': compiled loops need float32 or float64 on a CPU, got {x.dtype} on {x.device}; "
            "use backend='auto' or 'torch'"
        )
    return fits and _has_numba()


def runs_compiled_integers(x: Tensor) -> bool:
    """Return whether compiled loops are to do the bookkeeping of slots like `x`, next to whatever does the rest."""
    return _wanted not in ("torch", "triton") and x.device.type == "cpu" and _has_numba()


def runs_triton(x: Tensor) -> bool:
    """Return whether Triton kernels are to work on tensors like `x`.

    Raises:
        RuntimeError: If they were asked for by name and cannot.
    """
    if _wanted in ("torch", "numba") or (_wanted == "auto" and x.device.type != "cuda"):
        return False
    fits = x.dtype in _TRITON_DTYPES and (x.device.type == "cuda" or interprets_triton())
    if _wanted == "triton" and not fits:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in _TRITON_DTYPES)
        raise RuntimeError(
            f"backend='triton': kernels need {kinds} on a CUDA device, got {x.dtype} on {x.device}; "
            "use backend='auto' or 'torch'"
        )
    return fits and _has_triton()


def compose(what: str, why: str) -> None:
    """Let "auto" do `what` in plain PyTorch beside kernels, which is said once; a named backend runs or raises.

    Raises:
        RuntimeError: If the backend was asked for by name.
    """
    if _wanted != "auto":
        raise RuntimeError(
            f"backend={_wanted!r}: {why}; use backend='auto', which does this part in plain PyTorch, or 'torch'"
        )
    say_composed(what, why)


@cache
def say_composed(what: str, why: str) -> None:
    """Say once that `what` is plain PyTorch's, beside kernels."""
    logger.info("backend -> torch for %s: %s", what, why)


def interprets_triton() -> bool:
    """Return whether Triton runs its kernels without a GPU, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on") and _has_triton()


def name_backend(device: torch.device | str) -> str:
    """Name the form that float32 operations take on `device`: torch, numba or triton."""
    x = torch.empty(0, device=device)
    if runs_triton(x):
        return "triton"
    return "numba" if runs_compiled(x) else "torch"


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    """Return whether compiled loops run here; why not is said once."""
    missing = _why_no_numba()
    level = logging.WARNING if missing and _is_installed("numba") else logging.INFO
    logger.log(level, "backend auto -> %s", f"torch: {missing}" if missing else "numba (CPU)")
    return missing is None


def _why_no_numba() -> str | None:
    if not _is_installed("numba"):
        return "pip install 'fwpkm[cpu]' brings compiled loops, several times faster"
    try:
        importlib.import_module("numba")
    except ImportError as error:  # a numba that is older than NumPy refuses it
        return f"numba is installed and does not load ({error}); pip install -U 'fwpkm[cpu]'"
    return None


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    """Return whether kernels load here; why not is said once, to those who have a use for them."""
    missing = why_no_triton()
    if torch.cuda.is_available():
        level = logging.WARNING if missing else logging.INFO
        logger.log(level, "backend auto -> %s (CUDA)", f"torch: {missing}" if missing else "triton")
    return missing is None


def why_no_triton() -> str | None:
    """Return what keeps kernels from loading here, or None."""
    if not _is_installed("triton"):
        return "pip install 'fwpkm[gpu]' brings Triton and with it kernels, many times faster"
    try:
        importlib.import_module("triton.language")
        version = importlib.import_module("triton").__version__
    except (
        Exception
    ) as error:  # of another Python, NumPy or driver: it has raised AttributeError, RuntimeError, ...
        return f"Triton is installed and does not load ({error}); pip install -U 'fwpkm[gpu]'"
    if tuple(map(int, version.split(".")[:2])) < _OLDEST_TRITON:
        oldest = ".".join(map(str, _OLDEST_TRITON))
        return f"Triton {version} is older than {oldest}, which kernels need; pip install -U 'fwpkm[gpu]'"
    return None


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
