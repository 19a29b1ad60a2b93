"""Pointers into arrays, for compiled loops over rows that lie here and there.

A view of a row is seven words and counts references, which is more work than many a row itself; a pointer is one
word and is indexed alike. Nothing looks after its bounds, nor keeps the array: one that a compiled function makes is
gone once it was last named, so pointers are for arrays that were handed in. Where a row lies may be kept as a number,
its address.
"""

from typing import no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

LINE = 64
"""Bytes that a processor moves between its caches at once."""


@no_type_check
def _check_contiguous(array):
    if not isinstance(array, types.Array) or array.layout != "C":
        raise TypingError(f"pointers lead into contiguous arrays only, got {array}")


@no_type_check
def _place(context, builder, signature, values):
    """Return the pointer to that number of an array."""
    array, number = signature.args
    data = context.make_array(array)(context, builder, values[0]).data
    return builder.gep(data, [context.cast(builder, values[1], number, types.intp)])


@intrinsic
@no_type_check
def pointer_to(typing_context, array, number):
    """Return a pointer to the number of that place in a contiguous array, whatever its shape."""
    _check_contiguous(array)
    return types.CPointer(array.dtype)(array, number), _place


@intrinsic
@no_type_check
def address_of(typing_context, array, number):
    """Return the address of the number of that place in a contiguous array, whatever its shape."""
    _check_contiguous(array)

    def generate(context, builder, signature, values):
        return builder.ptrtoint(
            _place(context, builder, signature, values), context.get_value_type(types.intp)
        )

    return types.intp(array, number), generate


@intrinsic
@no_type_check
def pointer_at(typing_context, array, address):
    """Return a pointer to what lies at an address, of the kind of an array's numbers."""
    kind = types.CPointer(array.dtype)

    def generate(context, builder, signature, values):
        return builder.inttoptr(values[1], context.get_value_type(kind))

    return kind(array, types.intp), generate


@intrinsic
@no_type_check
def copy_past_cache(typing_context, row, out, width):
    """Copy an array to where a pointer leads without bringing what lies there into the cache first, nor keeping it.

    For rows that are overwritten whole and not soon read again. Both must be a whole number of lines, the pointer at
    the beginning of one, and `finish_stores` must follow before another thread looks at it.
    """
    _check_contiguous(row)

    def generate(context, builder, signature, values):
        lanes = ir.VectorType(context.get_data_type(row.dtype), LINE * 8 // row.dtype.bitwidth).as_pointer()
        data, end = context.make_array(row)(context, builder, values[0]).data, values[2]
        step = ir.Constant(end.type, LINE * 8 // row.dtype.bitwidth)
        with cgutils.for_range_slice(builder, ir.Constant(end.type, 0), end, step) as (at, _):
            line = builder.load(builder.bitcast(builder.gep(data, [at]), lanes))
            line.align = row.dtype.bitwidth // 8
            store = builder.store(line, builder.bitcast(builder.gep(values[1], [at]), lanes))
            store.align = LINE
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.none(row, out, types.intp), generate


@intrinsic
@no_type_check
def finish_stores(typing_context):
    """Have everything that was stored seen by the other threads."""

    def generate(context, builder, signature, values):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate
