"""Elementwise functions of one or two arrays, in one pass over memory.

Each saves nothing but its inputs: recomputing the rest costs less than storing it and reading it back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.kernels.numba.compilation import compiled, contiguous
from tinygrad_chat.kernels.numba.exponential import exponential
from tinygrad_chat.kernels.numba.threads import divided
from tinygrad_chat.ops.pointwise import GELU_CUBIC, GELU_FLAT, GELU_SCALE, check_gate


def squared_relu(x: np.ndarray):
    """`ops.squared_relu`."""
    return _pointwise(x, _squared_relu, _squared_relu_backward)


def gelu(x: np.ndarray):
    """`ops.gelu`, as x * sigmoid(y) with y = 2 * scale * (x + cubic * x^3): sigmoid(y) = (1 + tanh(y / 2)) / 2."""
    return _pointwise(x, _gelu, _gelu_backward)


def swiglu(gate: np.ndarray, up: np.ndarray):
    """`ops.swiglu`."""
    check_gate(gate, up)
    flat_gate, flat_up = contiguous(gate).ravel(), contiguous(up).ravel()
    out = np.empty_like(flat_gate)
    divided(_swiglu, flat_gate, flat_up, out)

    def backward(d_out: np.ndarray):
        d_gate, d_up = np.empty_like(flat_gate), np.empty_like(flat_up)
        divided(_swiglu_backward, flat_gate, flat_up, contiguous(d_out).ravel(), d_gate, d_up)
        return d_gate.reshape(gate.shape), d_up.reshape(up.shape)

    return out.reshape(gate.shape), backward


def _pointwise(x: np.ndarray, compute: Any, compute_backward: Any):
    flat = contiguous(x).ravel()
    out = np.empty_like(flat)
    divided(compute, flat, out)

    def backward(d_out: np.ndarray):
        d_x = np.empty_like(flat)
        divided(compute_backward, flat, contiguous(d_out).ravel(), d_x)
        return (d_x.reshape(x.shape),)

    return out.reshape(x.shape), backward


@compiled
def _squared_relu(x: Any, out: Any) -> None:
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = zero if x[i] < zero else x[i] * x[i]


@compiled
def _squared_relu_backward(x: Any, d_out: Any, d_x: Any) -> None:
    zero = x.dtype.type(0)
    for i in range(x.size):
        d_x[i] = zero if x[i] < zero else d_out[i] * (x[i] + x[i])


@compiled
def _gelu(x: Any, out: Any) -> None:
    real = x.dtype.type
    one, linear, cubic = real(1), real(2 * GELU_SCALE), real(2 * GELU_SCALE * GELU_CUBIC)
    for i in range(x.size):
        out[i] = x[i] / (one + exponential(-x[i] * (linear + cubic * x[i] * x[i])))


@compiled
def _gelu_backward(x: Any, d_out: Any, d_x: Any) -> None:
    """d_x = d_out * s * (1 + (1 - s) * x * y'(x)) with s = sigmoid(y)."""
    real = x.dtype.type
    one, linear, cubic = real(1), real(2 * GELU_SCALE), real(2 * GELU_SCALE * GELU_CUBIC)
    three, flat = real(3), real(GELU_FLAT)
    for i in range(x.size):
        b = -flat if x[i] < -flat else flat if x[i] > flat else x[i]
        square = b * b
        s = one / (one + exponential(-b * (linear + cubic * square)))
        d_x[i] = d_out[i] * s * (one + (one - s) * b * (linear + three * cubic * square))


@compiled
def _swiglu(gate: Any, up: Any, out: Any) -> None:
    one = gate.dtype.type(1)
    for i in range(gate.size):
        out[i] = gate[i] / (one + exponential(-gate[i])) * up[i]


@compiled
def _swiglu_backward(gate: Any, up: Any, d_out: Any, d_gate: Any, d_up: Any) -> None:
    one = gate.dtype.type(1)
    for i in range(gate.size):
        s = one / (one + exponential(-gate[i]))
        d_gate[i] = d_out[i] * up[i] * s * (one + gate[i] * (one - s))
        d_up[i] = d_out[i] * gate[i] * s
