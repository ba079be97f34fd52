"""Matrix products whose result stays in registers, tile by tile, until it is complete.

    out[row + r, column + c] = sum over k of a[row + r, k] * b[k, column + c]

For each k, a tile of 16 vectors loads a few vectors of b and one number of a per row, and adds all their products. The
compiler does not derive that from loops: it would read and write the result for each k. `a` may have any strides, so
it can be a transposed view; rows of `b` and `out` must be contiguous.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tinygrad_chat.kernels.numba.compilation import inlined

LANES = 16  # float32 in a vector of 512 bits
TALL = 16  # rows of the tallest tile; `multiply` takes a multiple of these
HAS_WIDE_VECTORS = bool(binding.get_host_cpu_features().get("avx512f"))
"""Whether the processor has the 32 registers of 512 bits that a tile needs."""

_INT32, _INT64, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)


def _tile(rows: int, vectors: int) -> Any:
    """Return (a, row, b, column, out, add) -> None for compiled code, which fills a tile of that many rows and vectors,
    or adds to it. The matrices are float32 and have at least one column."""

    def typed(typing_context: Any, a: Any, row: Any, b: Any, column: Any, out: Any, add: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            arrays = [
                context.make_array(kind)(context, builder, array)
                for kind, array in zip(signature.args[:5:2], arguments[:5:2], strict=True)
            ]
            _, row, _, column, _, add = arguments
            steps = [cgutils.unpack_tuple(builder, array.strides, 2) for array in arrays]
            of_a, of_b, of_out = (builder.bitcast(array.data, ir.IntType(8).as_pointer()) for array in arrays)
            bytes_before = builder.mul(column, _INT64(4))
            lines = [_moved(builder, of_a, builder.add(row, _INT64(r)), steps[0][0]) for r in range(rows)]
            places = [
                _vectors(
                    builder,
                    builder.gep(_moved(builder, of_out, builder.add(row, _INT64(r)), steps[2][0]), [bytes_before]),
                    vectors,
                )
                for r in range(rows)
            ]
            sums = _begin(builder, places, add)
            count = cgutils.unpack_tuple(builder, arrays[0].shape, 2)[1]
            sums = _loop(builder, lines, steps[0][1], builder.gep(of_b, [bytes_before]), steps[1][0], count, sums)
            for of_row, at in zip(sums, places, strict=True):
                for vector, place in zip(of_row, at, strict=True):
                    builder.store(vector, place).align = 4
            return context.get_dummy_value()

        return types.void(a, row, b, column, out, add), generate

    return intrinsic(typed)


def _begin(builder: Any, places: list[list[Any]], add: Any) -> list[list[Any]]:
    """Return the initial values of a tile: those stored at `places` if `add`, else zeros."""
    before = builder.block
    with builder.if_then(builder.trunc(add, ir.IntType(1))):
        read = [[_read(builder, place) for place in of_row] for of_row in places]
        reading = builder.block
    sums = [[builder.phi(_VECTOR) for _ in of_row] for of_row in places]
    for new, of_row in zip(sums, read, strict=True):
        for total, vector in zip(new, of_row, strict=True):
            total.add_incoming(ir.Constant(_VECTOR, [0.0] * LANES), before)
            total.add_incoming(vector, reading)
    return sums


def _loop(
    builder: Any, lines: list[Any], a_step: Any, line_of_b: Any, b_step: Any, count: Any, begin: list[list[Any]]
) -> list[list[Any]]:
    """Emit the loop over k; return the sums (rows, vectors), which start from `begin`."""
    before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_INT64)
    k.add_incoming(_INT64(0), before)
    sums = [[builder.phi(_VECTOR) for _ in of_row] for of_row in begin]
    read = [_read(builder, place) for place in _vectors(builder, _moved(builder, line_of_b, k, b_step), len(begin[0]))]
    new: list[list[Any]] = []
    for line, of_row in zip(lines, sums, strict=True):
        place = builder.bitcast(_moved(builder, line, k, a_step), _FLOAT.as_pointer())
        number = _everywhere(builder, builder.load(place))
        new.append([_fused(builder, number, vector, total) for vector, total in zip(read, of_row, strict=True)])
    following = builder.add(k, _INT64(1))
    k.add_incoming(following, loop)
    for olds, first, of_row in zip(sums, begin, new, strict=True):
        for old, at_first, total in zip(olds, first, of_row, strict=True):
            old.add_incoming(at_first, before)
            old.add_incoming(total, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    return new


def _moved(builder: Any, pointer: Any, index: Any, step: Any) -> Any:
    """Return a byte pointer advanced by `index` steps."""
    return builder.gep(pointer, [builder.mul(index, step)])


def _vectors(builder: Any, pointer: Any, count: int) -> list[Any]:
    """Return pointers to `count` consecutive vectors."""
    first = builder.bitcast(pointer, _FLOAT.as_pointer())
    return [builder.bitcast(builder.gep(first, [_INT64(LANES * i)]), _VECTOR.as_pointer()) for i in range(count)]


def _read(builder: Any, place: Any) -> Any:
    vector = builder.load(place)
    vector.align = 4
    return vector


def _everywhere(builder: Any, number: Any) -> Any:
    """Return a vector with one number in all lanes."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, _INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES))


def _fused(builder: Any, x: Any, y: Any, total: Any) -> Any:
    """Return x * y + total, rounded once."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(function, (x, y, total))


def _transpose_tile(typing_context: Any, matrix: Any, row: Any, column: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of_matrix, of_out = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3))
        _, row, column, _ = arguments

        def lines(array: Any, row: Any, column: Any) -> list[Any]:
            step = cgutils.unpack_tuple(builder, array.strides, 2)[0]
            data = builder.bitcast(builder.gep(array.data, [column]), ir.IntType(8).as_pointer())
            at = [_moved(builder, data, builder.add(row, _INT64(i)), step) for i in range(LANES)]
            return [_vectors(builder, place, 1)[0] for place in at]

        vectors = [_read(builder, place) for place in lines(of_matrix, row, column)]
        for distance in (8, 4, 2, 1):  # swap the off-diagonal blocks of this size
            for i in range(LANES):
                if not i & distance:
                    two = vectors[i], vectors[i + distance]
                    for j, offset in ((i, 0), (i + distance, distance)):
                        kept = [
                            lane + offset if not lane & distance else LANES + lane - distance + offset
                            for lane in range(LANES)
                        ]
                        order = ir.Constant(ir.VectorType(_INT32, LANES), kept)
                        vectors[j] = builder.shuffle_vector(*two, order)
        for vector, place in zip(vectors, lines(of_out, column, row), strict=True):
            builder.store(vector, place).align = 4
        return context.get_dummy_value()

    return types.void(matrix, row, column, out), generate


_sixteen_by_sixteen: Any = intrinsic(_transpose_tile)

_wide, _middle, _narrow = _tile(4, 4), _tile(8, 2), _tile(TALL, 1)


@inlined
def multiply(a: Any, b: Any, out: Any, add: bool) -> None:
    """out (M, N) = a (M, K) times b (K, N), plus `out` if `add`; M and N are multiples of 16, and K is at least 1."""
    M, N = out.shape
    column = 0
    while column < N:
        if N - column >= 4 * LANES:
            for row in range(0, M, 4):
                _wide(a, row, b, column, out, add)
            column += 4 * LANES
        elif N - column >= 2 * LANES:
            for row in range(0, M, 8):
                _middle(a, row, b, column, out, add)
            column += 2 * LANES
        else:
            for row in range(0, M, TALL):
                _narrow(a, row, b, column, out, add)
            column += LANES


@inlined
def transpose(matrix: Any, out: Any) -> None:
    """Transpose a matrix (S, D), D a multiple of 16, into the first columns of `out` (D, S or more)."""
    S, D = matrix.shape
    whole = S // LANES * LANES
    for row in range(0, whole, LANES):
        for column in range(0, D, LANES):
            _sixteen_by_sixteen(matrix, row, column, out)
    for row in range(whole, S):
        for column in range(D):
            out[column, row] = matrix[row, column]
