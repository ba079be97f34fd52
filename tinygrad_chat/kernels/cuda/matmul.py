"""Matrix products by cuBLAS, `gemm`: operands in float32 or bfloat16, sums in float32, transposed and sliced views
without a copy, batches, results of either type, written or accumulated. And the op `matmul`, by it.

CuPy's own product allows none of these for bfloat16, and none while a CUDA graph is captured.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tinygrad_chat.autograd import compute_for, current_mode
from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.cublas import (
    CUBLAS_COMPUTE_32F,
    CUBLAS_COMPUTE_32F_FAST_TF32,
    CUDA_R_16BF,
    CUDA_R_32F,
    Factors,
    Operand,
    Product,
    check,
    cublas_of,
)
from tinygrad_chat.kernels.cuda.launch import contiguous
from tinygrad_chat.kernels.cuda.plans import find_plan
from tinygrad_chat.ops.broadcasting import sum_to
from tinygrad_chat.ops.matmul import check_matmul


def matmul(x: Any, y: Any):
    """`ops.matmul`. More than two leading axes become one, by copies where they must."""
    check_matmul(x, y)
    tf32 = compute_for(x).tf32

    def backward(d_out: Any):
        d_x = _batched(d_out, y.swapaxes(-1, -2), tf32=tf32)
        d_y = _batched(x.swapaxes(-1, -2), d_out, tf32=tf32)
        return sum_to(d_x, x), sum_to(d_y, y)

    return _batched(x, y, tf32=tf32), backward


def _batched(left: Any, right: Any, *, tf32: bool) -> Any:
    """Return left (..., N, K) @ right (..., K, M), whose leading axes are broadcast."""
    xp, batch = array_module(left), np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    out = xp.empty((*batch, left.shape[-2], right.shape[-1]), left.dtype)
    if out.size == 0:
        return out
    left, right = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (left, right))
    together = (-1,) if len(batch) > 2 else batch
    gemm(*(x.reshape(*together, *x.shape[-2:]) for x in (left, right, out)), tf32=tf32)
    return out


def gemm(left: Any, right: Any, out: Any, *, tf32: bool, scale: float = 1.0, add: float = 0.0) -> Any:
    """Write scale * left (..., M, K) @ right (..., K, N) to `out` (..., M, N), or add it there to `add` times the old
    values; return `out`, which shares no memory with the operands.

    At most two leading axes, the same for all; an operand may be broadcast along one with a stride of 0. With `tf32`,
    float32 factors are rounded to 10 bits. The forward pass decides that, by `compute_for`, and its backward rule must
    keep the choice: when the rule runs, another compute may be in force.
    """
    if out.ndim == 4:
        along = 0 if out.shape[0] <= out.shape[1] else 1  # one call per index of the shorter axis
        for i in range(out.shape[along]):
            part = (i,) if along == 0 else (slice(None), i)
            gemm(left[part], right[part], out[part], tf32=tf32, scale=scale, add=add)
        return out
    if out.size == 0:
        return out
    cublas = cublas_of(array_module(out))
    left, right = _readable(left), _readable(right)  # any copies stay alive until the call below
    product, factors = product_of(left, right, out, tf32=tf32, scale=scale, add=add)
    stream, choices = array_module(out).cuda.get_current_stream().ptr, current_mode().products
    plan = None if choices is None else find_plan(choices, out, cublas, product, factors)
    if plan is None:
        cublas.use_stream(stream)
        cublas.multiply(product, factors)
    else:
        check(plan.multiply(cublas, factors, stream))
    return out


def product_of(
    left: Any, right: Any, out: Any, *, tf32: bool, scale: float = 1.0, add: float = 0.0
) -> tuple[Product, Factors]:
    """Return what `gemm` computes, of at most three axes, as cuBLAS sees it."""
    M, N = out.shape[-2:]
    tf32 = tf32 and left.dtype == np.float32
    compute = CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 else CUBLAS_COMPUTE_32F
    operands = _operand(right), _operand(left), _operand(out)
    assert not operands[2].transposed
    # cuBLAS is column-major: it sees our row-major matrices as transposed, and out.T = right.T @ left.T.
    product = Product(N, M, left.shape[-1], out.shape[0] if out.ndim == 3 else 1, compute, *operands)
    return product, Factors(ctypes.c_float(scale), ctypes.c_float(add), right.data.ptr, left.data.ptr, out.data.ptr)


def _readable(x: Any) -> Any:
    """Return x, copied if cuBLAS cannot read it in place: neither its rows nor its columns are contiguous, or matrices,
    rows or columns have negative strides or overlap."""
    fits = (_is_dense(x, -1) and _is_apart(x, -2)) or (_is_dense(x, -2) and _is_apart(x, -1))
    return x if fits and min(x.strides) >= 0 else contiguous(x, x.dtype)


def _is_dense(x: Any, axis: int) -> bool:
    return x.shape[axis] == 1 or x.strides[axis] == x.itemsize


def _is_apart(x: Any, axis: int) -> bool:
    """Return whether contiguous rows (axis -2) or columns (axis -1) do not overlap."""
    return x.shape[axis] == 1 or x.strides[axis] >= x.shape[-3 - axis] * x.itemsize


def _operand(x: Any) -> Operand:
    """Return how cuBLAS is to read a matrix or a batch."""
    transposed = not (_is_dense(x, -1) and _is_apart(x, -2))
    inner, outer = (-2, -1) if transposed else (-1, -2)
    kind = CUDA_R_32F if x.dtype == np.float32 else CUDA_R_16BF
    # The stride of a single row means nothing, but cuBLAS requires at least the length of a row, and not 0.
    leading = max(x.strides[outer] // x.itemsize, x.shape[inner], 1)
    return Operand(int(transposed), kind, leading, x.strides[0] // x.itemsize if x.ndim == 3 else 0)
