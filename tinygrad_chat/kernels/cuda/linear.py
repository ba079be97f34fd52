"""The linear layer: three products; the weight's gradient is accumulated directly in its buffer."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import compute_for
from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous
from tinygrad_chat.kernels.cuda.matmul import PendingProduct, gemm
from tinygrad_chat.kernels.cuda.pointwise import add
from tinygrad_chat.kernels.cuda.sums import column_sums
from tinygrad_chat.ops.matmul import check_linear
from tinygrad_chat.ops.shape import rows_of


def linear(x: Any, weight: Any, bias: Any = None):
    """`ops.linear`."""
    check_linear(x, weight, bias)
    xp, real, tf32, (D, C) = array_module(x), x.dtype, compute_for(x).tf32, weight.shape
    rows = rows_of(contiguous(x, real))
    out = gemm(rows, weight.T, xp.empty((len(rows), D), real), tf32=tf32)
    if bias is not None:
        out = add(out, bias)[0]

    def backward(d_out: Any):
        d_rows = rows_of(contiguous(d_out, real))
        d_x = gemm(d_rows, weight, xp.empty((len(rows), C), real), tf32=tf32)
        d_bias = None if bias is None else column_sums(d_rows)
        return d_x.reshape(x.shape), PendingProduct(d_rows.T, rows, tf32=tf32), d_bias

    return out.reshape(*x.shape[:-1], D), backward
