"""How the CPU kernels are compiled."""

from collections.abc import Callable
from typing import Any

import numba


def jit(fn: Callable[..., Any]) -> Any:
    """Compile loops with numba, free of the interpreter's lock, sums in any order; NaN and infinity keep their meaning.

    What was compiled is kept on disk where numba finds a place to write to.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"contract", "reassoc", "nsz"},
    }
    try:
        return numba.njit(cache=True, **options)(fn)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return numba.njit(**options)(fn)
