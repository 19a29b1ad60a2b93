"""How the CPU kernels are compiled."""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba.extending import overload
from numba.np.numpy_support import as_dtype

_ANY_ORDER = {"contract", "reassoc", "nsz"}


def jit(fn: Callable[..., Any]) -> Any:
    """Compile loops with numba, free of the interpreter's lock, sums in any order; NaN and infinity keep their meaning.

    What was compiled is kept on disk where numba finds a place to write to.
    """
    return _compile(fn, _ANY_ORDER, inline=False)


def jit_inline(fn: Callable[..., Any]) -> Any:
    """Do the same for what loops call in passing: a call puts seven words of every array on the stack.

    Not for loops that threads run: they would be compiled anew wherever they are called, and add up in another order.
    """
    return _compile(fn, _ANY_ORDER, inline=True)


def jit_inline_without_nan(fn: Callable[..., Any]) -> Any:
    """Do the same for what never meets a NaN, so that maxima too may be taken in any order."""
    return _compile(fn, {*_ANY_ORDER, "nnan"}, inline=True)


def chosen_by_type(stub: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let compiled loops that call `stub` run what the function below returns for their arguments' types."""
    return overload(stub, inline="always")


def holds_bfloat16(kind: Any) -> bool:
    """Return whether numbers of this type are the bits of a bfloat16 (see `fwpkm.ops.threads.array_of`)."""
    return bool(kind == numba.types.uint16)


def number_type(kind: Any) -> Any:
    """Return NumPy's type of the numbers that an array or a pointer of this type leads to."""
    return as_dtype(kind.dtype).type


def _compile(fn: Callable[..., Any], fastmath: set[str], *, inline: bool) -> Any:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    options |= {"forceinline": inline, "no_cfunc_wrapper": True}  # C, which would need a wrapper, calls none
    name = fn.__qualname__
    fn.__qualname__ = f"{name}-{_sources()}"
    try:
        return numba.njit(cache=True, **options)(fn)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return numba.njit(**options)(fn)
    finally:
        fn.__qualname__ = name


@cache
def _sources() -> str:
    """Return a hash of all files of operations, for the names under which numba keeps compiled loops on disk.

    Numba looks at a loop's own file alone, and would go on using what was compiled of other files' loops and constants.
    """
    found = sha256(numba.__version__.encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
