"""Compiled loops on torch's own OpenMP team, entered from compiled code: no thread waits for the interpreter's lock.

A thread that Python starts takes that lock to call its loop, and whoever comes second sleeps until the first has
let go; waking costs more than many a loop (docs/performance.md). Threads call a loop by its address, asked for once, so
that it is compiled once, and the same code runs whoever calls it. Built on numba's own means of extension, which its
versions may change: `works` tries them out once.
"""

import ctypes
import logging
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any, no_type_check

import llvmlite.binding as llvm
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fwpkm.ops.jit import jit
from fwpkm.ops.loop_address import known_address, name_loop, offer_addresses

logger = logging.getLogger(__name__)

_RUNTIME = {
    "fwpkm_parallel": "GOMP_parallel",
    "fwpkm_thread": "omp_get_thread_num",
    "fwpkm_num_threads": "omp_get_num_threads",
}
"""What compiled code calls, by names that no other library has, and what GNU's OpenMP calls it."""
_WORD, _BYTES = ir.IntType(32), ir.IntType(8).as_pointer()


@cache
def works() -> bool:
    """Return whether loops can be entered so: on Linux, where torch brings GNU's OpenMP, by a numba that is known."""
    path = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    if not sys.platform.startswith("linux") or not path.exists():
        return False
    library = ctypes.CDLL(str(path))
    for name, of in _RUNTIME.items():
        llvm.add_symbol(name, ctypes.cast(getattr(library, of), ctypes.c_void_p).value)
    offer_addresses()
    seen = np.zeros(5, dtype=np.int64)
    try:
        forked(_note)(np.array([[0, 2], [2, 5]]), seen)
    except Exception as error:  # whatever another version does
        logger.warning("compiled loops run on threads of their own, which is slower: %s", error)
        return False
    return seen.tolist() == [1, 1, 2, 2, 2]


@cache
def forked(kernel: Any) -> Callable[..., None]:
    """Return entry(spans, *args), which calls kernel(first, last, part, *args) for all spans [P, 2] side by side.

    The kernel must be found in its module, by its name. A RuntimeError is raised if any call raises. What was compiled
    is kept on disk beside the kernel.
    """
    own = kernel.py_func
    code = _entry.__code__.replace(
        co_filename=own.__code__.co_filename, co_firstlineno=own.__code__.co_firstlineno
    )
    entry = FunctionType(code, {"kernel": kernel, "fork": _fork, "__name__": own.__module__})
    entry.__qualname__ = f"{own.__qualname__}_forked"
    return jit(entry)


@cache
def compiled(driver: Callable[..., Any]) -> Any:
    """Compile a function whose global `side_by_side` is to run loops on the team; kept on disk beside it."""
    own = FunctionType(driver.__code__, {**driver.__globals__, "side_by_side": _fork})
    own.__qualname__ = f"{driver.__qualname__}_forked"
    return jit(own)


kernel: Any
fork: Any
"""What `_entry` calls: `forked` gives each copy of it a kernel."""


@no_type_check
def _entry(spans, *args):
    if fork(kernel, spans, args):
        raise RuntimeError("a compiled loop raised an error on one of its threads")


@jit
@no_type_check
def _note(first, last, part, seen):
    for i in range(first, last):
        seen[i] += part + 1


@intrinsic
@no_type_check
def _fork(typing_context, kernel, spans, args):
    """Run kernel(first, last, part, *args) on a team with one thread a span; return whether any call raised."""
    call = kernel.get_call_type(typing_context, (types.intp, types.intp, types.intp, *args.types), {})
    loop = name_loop(kernel.dispatcher, call.args)

    def generate(context, builder, _, values):
        items = cgutils.unpack_tuple(builder, values[2])
        bare = [_uncounted(context, builder, *pair) for pair in zip(args.types, items, strict=True)]
        given = (_uncounted(context, builder, spans, values[1]), context.make_tuple(builder, args, bare))
        address = known_address(context, builder, loop)
        mark = builder.zext(cgutils.is_null(builder, address), _WORD)
        shared = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, [*given, mark, address]))
        with builder.if_then(cgutils.is_not_null(builder, address), likely=True):
            task = _task(context, builder.module, loop, call, spans, shared.type)
            num_spans = builder.trunc(_num_spans(context, builder, spans, values[1]), _WORD)
            run = ir.FunctionType(ir.VoidType(), [task.type, _BYTES, _WORD, _WORD])
            run = cgutils.get_or_insert_function(builder.module, run, "fwpkm_parallel")
            builder.call(run, [task, builder.bitcast(shared, _BYTES), num_spans, _WORD(0)])
        return builder.load(cgutils.gep_inbounds(builder, shared, 0, 2))

    return types.int32(kernel, spans, args), generate


@no_type_check
def _num_spans(context, builder, kind, spans):
    return cgutils.unpack_tuple(builder, context.make_array(kind)(context, builder, spans).shape)[0]


@no_type_check
def _uncounted(context, builder, kind, value):
    """Return an array as one that nobody owns: threads that count references to one owner slow each other down."""
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    return array._getvalue()


@no_type_check
def _task(context, module, loop, signature, spans_kind, shared_type):
    """Write the function that each thread of a team runs, for what they share: spans, arguments, mark and address."""
    name = f"fwpkm_task.{sha256(loop.encode()).hexdigest()}"
    if name in module.globals:  # a driver may run a loop twice
        return module.globals[name]
    task = ir.Function(module, ir.FunctionType(ir.VoidType(), [_BYTES]), name=name)
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    shared = builder.bitcast(task.args[0], shared_type)
    spans, args, mark, address = (cgutils.gep_inbounds(builder, shared, 0, i) for i in range(4))
    spans, args = builder.load(spans), cgutils.unpack_tuple(builder, builder.load(args))
    kind = context.call_conv.get_function_type(signature.return_type, signature.args)
    code = builder.bitcast(builder.load(address), kind.as_pointer())
    number = ir.FunctionType(_WORD, [])
    first, size = (
        builder.sext(
            builder.call(cgutils.get_or_insert_function(module, number, name), []),
            context.get_value_type(types.intp),
        )
        for name in ("fwpkm_thread", "fwpkm_num_threads")
    )
    bounds = context.make_array(spans_kind)(context, builder, spans)
    num_spans = _num_spans(context, builder, spans_kind, spans)
    with cgutils.for_range_slice(builder, first, num_spans, size) as (part, _):
        places = (
            cgutils.get_item_pointer(context, builder, spans_kind, bounds, [part, part.type(end)])
            for end in (0, 1)
        )
        ends = [builder.load(place) for place in places]
        status, _ = context.call_conv.call_function(
            builder, code, signature.return_type, signature.args, [*ends, part, *args]
        )
        with builder.if_then(status.is_error):
            builder.store(_WORD(1), mark)
    builder.ret_void()
    return task
