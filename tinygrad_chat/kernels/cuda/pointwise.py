"""Elementwise functions of one array, and of two: swiglu and addition."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous, launch, per_thread, width
from tinygrad_chat.kernels.cuda.slices import dense_rows, empty_neighbours
from tinygrad_chat.kernels.cuda.sums import column_sums
from tinygrad_chat.ops import arithmetic
from tinygrad_chat.ops.pointwise import check_gate


def gelu(x: Any):
    """`ops.gelu`."""
    return _pointwise("gelu", x)


def relu(x: Any):
    """`ops.relu`."""
    return _pointwise("relu", x)


def squared_relu(x: Any):
    """`ops.squared_relu`."""
    return _pointwise("squared_relu", x)


def _pointwise(name: str, x: Any):
    x = contiguous(x, x.dtype)
    out = array_module(x).empty_like(x)
    each = width(x.size, x, out)
    launch("pointwise.cu", name, x.dtype, per_thread(x.size, each), x, out, x.size, each > 1)

    def backward(d_out: Any):
        d_out, d_x = contiguous(d_out, x.dtype), array_module(x).empty_like(x)
        each = width(x.size, x, d_out, d_x)
        blocks = per_thread(x.size, each)
        launch("pointwise.cu", f"{name}_backward", x.dtype, blocks, x, d_out, d_x, x.size, each > 1)
        return (d_x,)

    return out, backward


def swiglu(gate: Any, up: Any):
    """`ops.swiglu`, saving nothing but its inputs. They may be slices of a larger array; their gradients are."""
    check_gate(gate, up)
    xp, real, shape = array_module(gate), gate.dtype, gate.shape
    gate, up = (dense_rows(x.reshape(shape or 1), real) for x in (gate, up))
    out, (N, C) = xp.empty(shape, real), gate.shape

    def run(name: str, whole: Any, *slices: Any) -> None:
        """Launch a kernel on rows that lie one after another in `whole`, and as far apart as they are in slices."""
        apart = [x.strides[0] // x.itemsize for x in slices]
        each = width(math.gcd(C, *apart), whole, *slices)
        arrays = *slices[:2], whole, *slices[2:]
        launch("pointwise.cu", name, real, per_thread(whole.size, each), *arrays, N, C, *apart, each > 1)

    run("swiglu", out, gate, up)

    def backward(d_out: Any):
        d_gate, d_up = empty_neighbours([gate, up])
        run("swiglu_backward", contiguous(d_out, real), gate, up, d_gate, d_up)
        return d_gate.reshape(shape), d_up.reshape(shape)

    return out, backward


def add(x: Any, y: Any):
    """`ops.add` for arrays of one type where y has the shape of x or of its last axes; for others, the op itself."""
    if not hasattr(y, "ndim") or y.size == 0 or x.dtype != y.dtype or x.shape[x.ndim - y.ndim :] != y.shape:
        return arithmetic.add.reference(x, y)
    x, y = contiguous(x, x.dtype), contiguous(y, y.dtype)
    out = array_module(x).empty_like(x)
    each = width(y.size, x, y, out)
    launch("pointwise.cu", "add", x.dtype, per_thread(x.size, each), x, y, out, x.size, y.size, each > 1)

    def backward(d_out: Any):
        d_y = (
            d_out
            if y.shape == x.shape
            else column_sums(contiguous(d_out, x.dtype).reshape(-1, y.size)).reshape(y.shape)
        )
        return d_out, d_y

    return out, backward
