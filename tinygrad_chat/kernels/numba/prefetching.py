"""Asking the processor for memory that is soon to be read, where it does not foresee that itself: its own prefetching
begins anew with each page, and a row of a cache of keys and values is not much longer.

Numba keeps compiled code as long as the file of its function stays the same: after a change here, delete the folder
`__pycache__`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

READ, KEEP, DATA = 0, 3, 1  # of LLVM's prefetch: to be read, in every cache, no instructions
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
"""(array, index) -> None for compiled code: the number at that place of the flat array, which may be behind its end, is
soon to be read, with what shares its line of the cache."""
