"""Products of sub-keys with as many queries as a vector has lanes, in registers, for compiled loops."""

from typing import no_type_check

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from fwpkm.ops.lanes import Lanes, multiply_add, spread_number, vector_place

_, _, _FEATURES = cpu_target.target_context.codegen().magic_tuple()
ROWS = 8 if "+avx512f" in _FEATURES else 2
"""Sub-keys at once: their sums must fit into registers, beside the queries."""
_WORD = ir.IntType(64)


@no_type_check
def _ranks_of(rows):
    """Return a function that ranks so many sub-keys which lie one behind the other."""

    @intrinsic
    @no_type_check
    def ranks(typing_context, keys, width, queries, scale, squares, out):
        if {keys, queries, squares, out} != {keys}:
            raise TypingError(f"one type of numbers for all, got {keys}, {queries}, {squares} and {out}")
        like = Lanes(keys.dtype)

        def generate(context, builder, signature, values):
            keys_at, length, queries_at, times, squares_at, out_at = values
            vector, align = context.get_value_type(like), keys.dtype.bitwidth // 8
            starts = [builder.gep(keys_at, [builder.mul(length, _WORD(r))]) for r in range(rows)]
            sums = _sums(
                builder, starts, length, builder.bitcast(queries_at, vector.as_pointer()), vector, align
            )
            factor = spread_number(builder, times, like.count)
            for r, products in enumerate(sums):
                square = builder.load(builder.gep(squares_at, [_WORD(r)]))
                rank = multiply_add(
                    builder, products, factor, builder.fneg(spread_number(builder, square, like.count))
                )
                builder.store(rank, vector_place(builder, out_at, _WORD(r * like.count), vector), align=align)
            return context.get_dummy_value()

        return types.none(keys, types.intp, queries, keys.dtype, squares, out), generate

    return ranks


@no_type_check
def _sums(builder, starts, length, queries, vector, align):
    """Write the loop over the width, whose sums stay in registers; return the products of every row."""
    before, loop, behind = builder.block, *(builder.append_basic_block(name) for name in ("loop", "behind"))
    builder.branch(loop)
    builder.position_at_end(loop)
    at, sums = builder.phi(_WORD), [builder.phi(vector) for _ in starts]
    query = builder.load(builder.gep(queries, [at]), align=align)
    new = [
        multiply_add(
            builder, spread_number(builder, builder.load(builder.gep(row, [at])), vector.count), query, own
        )
        for row, own in zip(starts, sums, strict=True)
    ]
    following = builder.add(at, _WORD(1))
    zero = ir.Constant(vector, [0.0] * vector.count)
    for value, first, then in (
        (at, _WORD(0), following),
        *((own, zero, to) for own, to in zip(sums, new, strict=True)),
    ):
        value.add_incoming(first, before)
        value.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", following, length), loop, behind)
    builder.position_at_end(behind)
    return new


rank_rows, rank_row = _ranks_of(ROWS), _ranks_of(1)
