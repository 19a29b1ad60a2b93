"""Where compiled loops are, for compiled code that calls them without being compiled together with them."""

import base64
import ctypes
import logging
import pickle
import sys
from operator import attrgetter
from typing import Any, no_type_check

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils

logger = logging.getLogger(__name__)

_ADDRESS = "fwpkm_address_of_loop"
"""What compiled code calls for the address of a loop."""
_BYTES = ir.IntType(8).as_pointer()


def offer_addresses() -> None:
    """Let compiled code of this process ask for addresses; before any is loaded."""
    llvm.add_symbol(_ADDRESS, ctypes.cast(_address, ctypes.c_void_p).value)


def name_loop(kernel: Any, kinds: tuple[Any, ...]) -> str:
    """Return what `known_address` finds a loop by, in this process or in one that reads compiled code from the disk."""
    own = kernel.py_func
    return base64.b64encode(pickle.dumps((own.__module__, own.__qualname__, kinds))).decode()


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)
@no_type_check
def _address(loop):
    """Return where a loop's code is, compiled now where it was not, or nothing if that cannot be done."""
    module, name, kinds = pickle.loads(base64.b64decode(loop))
    try:
        kernel = attrgetter(name)(sys.modules[module])
        kernel.compile(kinds)
        found = kernel.overloads[kinds]
        return found.library.get_pointer_to_function(found.fndesc.llvm_func_name)
    except Exception:  # it would be lost between two pieces of compiled code
        logger.exception("%s.%s has no code that threads could call", module, name)
        return None


@no_type_check
def known_address(context, builder, loop):
    """Write code that asks for a loop's address once, and keeps it; null if there is none."""
    module = builder.module
    kept = cgutils.add_global_variable(module, _BYTES, "fwpkm_loop")
    kept.linkage, kept.initializer = "internal", cgutils.get_null_value(_BYTES)
    with builder.if_then(cgutils.is_null(builder, builder.load(kept)), likely=False):
        ask = cgutils.get_or_insert_function(module, ir.FunctionType(_BYTES, [_BYTES]), _ADDRESS)
        builder.store(builder.call(ask, [context.insert_const_string(module, loop)]), kept)
    return builder.load(kept)
