"""Kernels for the CPU, compiled by Numba: each passes over memory once, and costs little to call on small arrays.

Each has the signature of the op it replaces and is tested against it by tests/test_catalogue.py. Other ops use NumPy's
kernels, and so do types smaller than float32, which Numba does not compile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tinygrad_chat import ops
from tinygrad_chat.autograd import Operation
from tinygrad_chat.kernels.numba.adamw import adamw_update
from tinygrad_chat.kernels.numba.attention import attention
from tinygrad_chat.kernels.numba.cross_entropy import cross_entropy
from tinygrad_chat.kernels.numba.embedding import embedding
from tinygrad_chat.kernels.numba.linear import linear
from tinygrad_chat.kernels.numba.normalization import layernorm, rmsnorm
from tinygrad_chat.kernels.numba.pointwise import gelu, squared_relu, swiglu
from tinygrad_chat.kernels.numba.quantized_product import quantized_product
from tinygrad_chat.kernels.numba.rotary import rotary
from tinygrad_chat.kernels.numba.softmax import log_softmax, softmax
from tinygrad_chat.kernels.numpy import KERNELS as NUMPY_KERNELS
from tinygrad_chat.nn import quantized
from tinygrad_chat.optim import adamw

COMPILED: dict[Operation[...], Callable[..., Any]] = {
    ops.attention: attention,
    ops.cross_entropy: cross_entropy,
    ops.embedding: embedding,
    ops.gelu: gelu,
    ops.layernorm: layernorm,
    ops.linear: linear,
    ops.log_softmax: log_softmax,
    ops.rmsnorm: rmsnorm,
    ops.rotary: rotary,
    ops.softmax: softmax,
    ops.squared_relu: squared_relu,
    ops.swiglu: swiglu,
}


def _or_numpy(op: Operation[...], kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return a compiled kernel that leaves types smaller than float32 to NumPy's, or to the reference."""
    other = NUMPY_KERNELS.get(op, op.reference)

    @functools.wraps(kernel)
    def run(first: Any, *inputs: Any, **options: Any) -> Any:
        return (other if first.dtype.itemsize < 4 else kernel)(first, *inputs, **options)

    return run


KERNELS = {
    **NUMPY_KERNELS,
    **{op: _or_numpy(op, kernel) for op, kernel in COMPILED.items()},
    adamw.adamw_update: adamw_update,
    quantized.quantized_product: quantized_product,
}
