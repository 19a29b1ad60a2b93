"""Vectors for compiled loops: numbers that one instruction handles together, each in a *lane* of its own.

What is done to one token after another leaves little for a processor to do at once where it searches and sorts; done
to as many tokens as there are lanes, the same steps need no branch, and nothing is ever passed from lane to lane. A
vector is wider than a register, so that several instructions are on their way. Nothing here may be reordered, so
results do not depend on where a loop is compiled.
"""

from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from fwpkm.ops.jit import chosen_by_type, number_type

VECTOR_BYTES = 128
"""Of one vector."""
_BIT, _INDEX, _MASK = ir.IntType(1), ir.IntType(32), ir.IntType(64)


class Lanes(types.Type):
    """A vector's type for numba: as many numbers as there is room for."""

    def __init__(self, dtype: Any) -> None:
        self.dtype, self.count = dtype, VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    @no_type_check
    def __init__(self, manager, kind):
        number = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, kind.count))


def num_lanes(row: Any) -> int:
    """Return how many of a row's numbers a vector takes; a row is an array or a pointer."""
    raise NotImplementedError("num_lanes: known to compiled loops only")


@chosen_by_type(num_lanes)
@no_type_check
def _(row):
    count = VECTOR_BYTES // np.dtype(number_type(row)).itemsize
    return lambda row: count


def new_whole(row: Any, length: int) -> Any:
    """Return room for so many vectors of whole numbers, of as many lanes as a row's."""
    raise NotImplementedError("new_whole: known to compiled loops only")


@chosen_by_type(new_whole)
@no_type_check
def _(row, length):
    size = np.dtype(number_type(row)).itemsize
    count, dtype = VECTOR_BYTES // size, np.dtype(f"i{size}")
    return lambda row, length: np.empty((length, count), dtype=dtype)


@no_type_check
def spread_number(builder, number, count):
    """Write code that puts one number into all lanes."""
    undefined = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_INDEX, count), [0] * count))


@no_type_check
def multiply_add(builder, x, y, z):
    """Write code for  x y + z , rounded once where the processor can."""
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


@no_type_check
def vector_place(builder, pointer, number, vector):
    """Return where the vector lies that begins with a pointer's `number`-th number."""
    return builder.bitcast(builder.gep(pointer, [number]), vector.as_pointer())


@intrinsic
@no_type_check
def load(typing_context, pointer, number):
    """Return a vector of the pointer's numbers, from that one on."""
    kind = Lanes(pointer.dtype)

    def generate(context, builder, signature, values):
        vector = context.get_value_type(kind)
        return builder.load(
            vector_place(builder, values[0], values[1], vector), align=pointer.dtype.bitwidth // 8
        )

    return kind(pointer, types.intp), generate


@intrinsic
@no_type_check
def store(typing_context, lanes, pointer, number):
    """Put the lanes in order where the pointer's `number`-th number is, and behind."""

    def generate(context, builder, signature, values):
        place = vector_place(builder, values[1], values[2], values[0].type)
        builder.store(values[0], place, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(lanes, pointer, types.intp), generate


@intrinsic
@no_type_check
def spread(typing_context, number, pointer):
    """Return a number in all lanes of a vector like the pointer's."""
    kind = Lanes(pointer.dtype)

    def generate(context, builder, signature, values):
        return spread_number(builder, context.cast(builder, values[0], number, kind.dtype), kind.count)

    return kind(number, pointer), generate


@intrinsic
@no_type_check
def times_plus(typing_context, x, y, z):
    """Return  x y + z , lane by lane."""

    def generate(context, builder, signature, values):
        return multiply_add(builder, *values)

    return x(x, x, x), generate


@intrinsic
@no_type_check
def sum_of(typing_context, x, y):
    """Return  x + y , lane by lane."""

    def generate(context, builder, signature, values):
        return builder.fadd(*values)

    return x(x, x), generate


@intrinsic
@no_type_check
def where_larger(typing_context, x, y, yes, no):
    """Return the lanes of `yes` where x > y, of `no` elsewhere, also where a NaN is."""

    def generate(context, builder, signature, values):
        return builder.select(builder.fcmp_ordered(">", values[0], values[1]), values[2], values[3])

    return yes(x, x, yes, yes), generate


@intrinsic
@no_type_check
def where_nan(typing_context, x, yes, no):
    """Return the lanes of `yes` where x is NaN, of `no` elsewhere."""

    def generate(context, builder, signature, values):
        return builder.select(builder.fcmp_unordered("uno", values[0], values[0]), values[1], values[2])

    return yes(x, yes, yes), generate


@intrinsic
@no_type_check
def bits_at_least(typing_context, x, y):
    """Return a mask with a bit for every lane, set where x >= y."""

    def generate(context, builder, signature, values):
        found = builder.fcmp_ordered(">=", values[0], values[1])
        return builder.zext(builder.bitcast(found, ir.IntType(x.count)), _MASK)

    return types.uint64(x, x), generate


@intrinsic
@no_type_check
def lowest_bit(typing_context, mask):
    """Return the number of the lowest bit that is set; some must be."""

    def generate(context, builder, signature, values):
        return builder.cttz(values[0], ir.Constant(_BIT, 1))

    return types.int64(types.uint64), generate
