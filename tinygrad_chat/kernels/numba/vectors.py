"""Dot products of a few rows with four others, in explicit vectors: the compiler does not derive these from loops.

    out[row + r, line + k] = sum over c of x[row + r, c] * weight[line + k, c]     r < rows, k < 4

Each vector that is loaded is used in several sums, and an integer sum adds two products in one instruction where the
processor has it (LLVM recognises it in products whose neighbours are added). Integers are exact: their sums do not
depend on the order, nor on the number of rows.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tinygrad_chat.kernels.numba.prefetching import CACHE_LINE, SECOND_CACHE, emit_prefetch

LINES = 4  # rows of the weight that are read at a time
LANES = 16  # sums in a vector of 512 bits; processors with shorter ones take several instructions
STEP = 2 * LANES  # columns per iteration of the loop
AHEAD = 2 * LINES  # lines by which a weight is prefetched before it is read

_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_HALF, _FLOAT = ir.HalfType(), ir.FloatType()
_STORED = {types.int8: _INT8, types.uint16: _HALF, types.float32: _FLOAT}
"""The types of a weight's numbers: uint16 holds the bits of float16."""
_X, _ROW, _WEIGHT, _LINE, _SIZES_OF_ROWS, _SCALES, _OUT = range(7)  # arguments of `sums_of_products`'s function
_SIZES = {_INT8: 1, _HALF: 2, _FLOAT: 4}  # bytes


def sums_of_products(rows: int) -> Any:
    """Return (x, row, weight, line, sizes, scales, out) -> None for compiled code, which fills (rows, 4) of `out`.

    All are contiguous. x (N, C) and weight (D, C) have a multiple of 32 columns: x in int16 and weight in int8, whose
    sums are multiplied by sizes (N,) and scales (D,); or x in float32 and weight in float32 or float16 (as uint16),
    sizes and scales None. `out` (N, D) is in float32.
    """

    def typed(typing_context: Any, x: Any, row: Any, weight: Any, line: Any, sizes: Any, scales: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def pointers(which: int, first: Any, count: int) -> list[Any]:
                """Return pointers to `count` rows of the argument `which`, from `first` on."""
                array = context.make_array(signature.args[which])(context, builder, arguments[which])
                width = cgutils.unpack_tuple(builder, array.shape)[1:] or [_INT64(1)]
                places = [builder.mul(builder.add(first, _INT64(i)), *width) for i in range(count)]
                return [builder.gep(array.data, [place]) for place in places]

            row, line, stored = arguments[_ROW], arguments[_LINE], _STORED[weight.dtype]
            columns = cgutils.unpack_tuple(builder, context.make_array(x)(context, builder, arguments[_X]).shape)[1]
            sums = _loop(builder, pointers(_X, row, rows), pointers(_WEIGHT, line, LINES), columns, stored)
            totals = _totals(builder, sums)
            for r, into in enumerate(pointers(_OUT, row, rows)):
                lanes = ir.Constant(ir.VectorType(_INT32, LINES), list(range(r * LINES, (r + 1) * LINES)))
                found = builder.shuffle_vector(totals, totals, lanes)
                if stored == _INT8:
                    scale = _read(builder, pointers(_SCALES, line, 1)[0], _INT64(0), _FLOAT, LINES)
                    size = _splat(builder, builder.load(pointers(_SIZES_OF_ROWS, row, rows)[r]), LINES)
                    found = builder.fmul(builder.sitofp(found, scale.type), builder.fmul(size, scale))
                place = builder.bitcast(builder.gep(into, [line]), found.type.as_pointer())
                builder.store(found, place).align = 4
            return context.get_dummy_value()

        return types.void(x, row, weight, line, sizes, scales, out), generate

    return intrinsic(typed)


def _splat(builder: Any, number: Any, count: int) -> Any:
    """Return a vector of `count` times the number."""
    kind = ir.VectorType(number.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _INT32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INT32, count), [0] * count))


def _widened_bits(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], _HALF), _FLOAT)

    return types.float32(bits), generate


widened: Any = intrinsic(_widened_bits)
"""(bits) -> float32 for compiled code: the value of the float16 whose bits a uint16 holds."""


def _loop(builder: Any, rows: list[Any], lines: list[Any], columns: Any, stored: Any) -> list[Any]:
    """Emit the loop over columns; return the sums, in 16 lanes each, of each row with each line, whose numbers have the
    type `stored`."""
    vector = ir.VectorType(_INT32 if stored == _INT8 else _FLOAT, LANES)
    before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    column = builder.phi(_INT64)
    column.add_incoming(_INT64(0), before)
    sums = [[builder.phi(vector) for _ in lines] for _ in rows]
    _prefetch(builder, lines, builder.add(column, builder.mul(columns, _INT64(AHEAD))), stored)
    new = _add_products(builder, rows, lines, column, sums, stored)
    following = builder.add(column, _INT64(STEP))
    column.add_incoming(following, loop)
    for olds, of_row in zip(sums, new, strict=True):
        for old, added in zip(olds, of_row, strict=True):
            old.add_incoming(ir.Constant(vector, [0] * LANES), before)
            old.add_incoming(added, loop)
    builder.cbranch(builder.icmp_signed("<", following, columns), loop, after)
    builder.position_at_end(after)
    return [each for of_row in new for each in of_row]


def _prefetch(builder: Any, lines: list[Any], column: Any, stored: Any) -> None:
    """Prefetch one step's columns of the lines, from `column` on.

    Into the second cache: prefetched into the first, they would evict rows before these are read again.
    """
    for line in lines:
        for offset in range(0, STEP, CACHE_LINE // _SIZES[stored]):
            emit_prefetch(builder, builder.gep(line, [builder.add(column, _INT64(offset))]), SECOND_CACHE)


def _add_products(
    builder: Any, rows: list[Any], lines: list[Any], column: Any, sums: list[list[Any]], stored: Any
) -> Any:
    """Return the sums with the products of one step's columns added."""
    if stored != _INT8:
        for start in (0, LANES):
            place = builder.add(column, _INT64(start))
            weights = [_widened(builder, _read(builder, line, place, stored, LANES)) for line in lines]
            numbers = [_read(builder, row, place, _FLOAT, LANES) for row in rows]
            sums = [
                [_fused(builder, x, weight, total) for weight, total in zip(weights, of_row, strict=True)]
                for x, of_row in zip(numbers, sums, strict=True)
            ]
        return sums
    weights = [_widened(builder, _read(builder, line, column, _INT8, STEP)) for line in lines]
    numbers = [_widened(builder, _read(builder, row, column, _INT16, STEP)) for row in rows]
    return [
        [
            builder.add(total, _sums_of_pairs(builder, *[builder.mul(x, weight, flags=("nsw",))] * 2))
            for weight, total in zip(weights, of_row, strict=True)
        ]
        for x, of_row in zip(numbers, sums, strict=True)
    ]


def _read(builder: Any, first: Any, column: Any, kind: Any, count: int) -> Any:
    place = builder.bitcast(builder.gep(first, [column]), ir.VectorType(kind, count).as_pointer())
    vector = builder.load(place)
    vector.align = 1
    return vector


def _widened(builder: Any, vector: Any) -> Any:
    """Widen a vector of int8 or int16 to int32, and of float16 to float32; float32 stays."""
    if vector.type.element == _FLOAT:
        return vector
    if vector.type.element == _HALF:
        return builder.fpext(vector, ir.VectorType(_FLOAT, vector.type.count))
    return builder.sext(vector, ir.VectorType(_INT32, vector.type.count))


def _totals(builder: Any, vectors: list[Any]) -> Any:
    """Return a vector that begins with the totals of up to 16 vectors.

    Neighbours are added in four rounds, two vectors at a time. So every total is summed in the same order, however
    many there are.
    """
    for _ in range(4):
        vectors = [_sums_of_pairs(builder, *two) for two in zip(vectors[::2], vectors[1::2] or vectors, strict=True)]
    return vectors[0]


def _sums_of_pairs(builder: Any, first: Any, second: Any) -> Any:
    """Return the sums of neighbouring pairs in two vectors of 16, or in one of 32, which is passed as both."""
    even, odd = (ir.Constant(ir.VectorType(_INT32, LANES), list(range(start, STEP, 2))) for start in (0, 1))
    add = builder.add if first.type.element == _INT32 else builder.fadd
    return add(builder.shuffle_vector(first, second, even), builder.shuffle_vector(first, second, odd))


def _fused(builder: Any, x: Any, weight: Any, total: Any) -> Any:
    """Return x * weight + total, rounded once."""
    kind = ir.FunctionType(total.type, [total.type] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32"), (x, weight, total)
    )
