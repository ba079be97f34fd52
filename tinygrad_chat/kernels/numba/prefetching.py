"""Software prefetching, where the processor does not prefetch itself: it starts over with each page of memory, and a
row of a key/value cache is not much longer than one.

Numba recompiles a function only when its own file changes: after a change here, delete the folder `__pycache__`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

READ, KEEP, DATA = 0, 3, 1  # for LLVM's prefetch: to read, into every cache, data
_INT32, _BYTES = ir.IntType(32), ir.IntType(8).as_pointer()


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, *[_INT32] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.bitcast(builder.gep(data, [arguments[1]]), _BYTES)
        builder.call(function, [place, *(ir.Constant(_INT32, each) for each in (READ, KEEP, DATA))])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = intrinsic(_prefetch)
"""(array, index) -> None for compiled code: prefetch the cache line of that element of the flat array. The index may
be past its end."""
