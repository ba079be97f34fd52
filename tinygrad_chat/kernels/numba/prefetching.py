"""Software prefetching, where the processor does not prefetch enough itself: it starts over with each page of memory,
and follows few of several short rows that are read at a time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

READ, DATA = 0, 1  # for LLVM's prefetch: to read, data
FIRST_CACHE, SECOND_CACHE = 3, 2  # the cache nearest to the processor that keeps the line
CACHE_LINE = 64  # bytes
_INT32, _BYTES = ir.IntType(32), ir.IntType(8).as_pointer()


def emit_prefetch(builder: Any, place: Any, cache: int) -> None:
    """Emit code that prefetches the line at a pointer into a cache. The pointer may be past the end of its array."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, *[_INT32] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    how = (ir.Constant(_INT32, each) for each in (READ, cache, DATA))
    builder.call(function, [builder.bitcast(place, _BYTES), *how])


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        emit_prefetch(builder, builder.gep(data, [arguments[1]]), FIRST_CACHE)
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = intrinsic(_prefetch)
"""(array, index) -> None for compiled code: prefetch the cache line of that element of the flat array. The index may
be past its end."""
