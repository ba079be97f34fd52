"""Elementwise functions of one or two arrays, in slices that stay in the cache from one pass to the next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinygrad_chat.ops.pointwise import GELU_CUBIC, GELU_FLAT, GELU_SCALE, check_gate

SLICE = 1 << 16  # elements: a few arrays of this length fit in a core's L2


def _slices(size: int) -> Iterator[slice]:
    return (slice(start, start + SLICE) for start in range(0, size, SLICE))


def gelu(x: np.ndarray):
    """`ops.gelu` as x * s with s = sigmoid(2 * scale * (x + cubic * x^3)), in fewer passes. It is the same, as
    (1 + tanh(y)) / 2 = sigmoid(2 y)."""
    flat = x.reshape(-1)
    s, out = np.empty_like(flat), np.empty_like(flat)
    with np.errstate(over="ignore"):  # e^-y may be infinite; then s is 0
        for part in _slices(flat.size):
            x_part, s_part = flat[part], s[part]
            np.multiply(x_part, x_part, out=s_part)
            s_part *= -2 * GELU_SCALE * GELU_CUBIC
            s_part -= 2 * GELU_SCALE
            s_part *= x_part
            np.exp(s_part, out=s_part)
            s_part += 1
            np.divide(1, s_part, out=s_part)
            np.multiply(x_part, s_part, out=out[part])

    def backward(d_out: np.ndarray):
        # gelu'(x) = s * (1 + (1 - s) * x * 2 * scale * (1 + 3 * cubic * x^2)), as sigmoid' = s * (1 - s)
        d_flat = d_out.reshape(-1)
        d_x = np.empty_like(flat)
        for part in _slices(flat.size):
            near, s_part, slope = np.clip(flat[part], -GELU_FLAT, GELU_FLAT), s[part], d_x[part]
            np.multiply(near, near, out=slope)
            slope *= 6 * GELU_SCALE * GELU_CUBIC
            slope += 2 * GELU_SCALE
            slope *= near
            slope *= 1 - s_part
            slope += 1
            slope *= s_part
            slope *= d_flat[part]
        return (d_x.reshape(x.shape),)

    return out.reshape(x.shape), backward


def swiglu(gate: np.ndarray, up: np.ndarray):
    """`ops.swiglu`, saving sigmoid(gate)."""
    check_gate(gate, up)
    flat_gate, flat_up = gate.reshape(-1), up.reshape(-1)
    s, out = np.empty_like(flat_gate), np.empty_like(flat_gate)
    with np.errstate(over="ignore"):  # e^-x may be infinite; then s is 0
        for part in _slices(out.size):
            s_part, out_part = s[part], out[part]
            np.negative(flat_gate[part], out=s_part)
            np.exp(s_part, out=s_part)
            s_part += 1
            np.divide(1, s_part, out=s_part)
            np.multiply(flat_gate[part], s_part, out=out_part)
            out_part *= flat_up[part]

    def backward(d_out: np.ndarray):
        d_flat = d_out.reshape(-1)
        d_gate, d_up = np.empty_like(flat_gate), np.empty_like(flat_gate)
        for part in _slices(d_flat.size):
            slope, swish = d_gate[part], d_up[part]
            np.multiply(flat_gate[part], s[part], out=swish)
            np.subtract(flat_gate[part], swish, out=slope)  # gate * (1 - s)
            slope += 1
            slope *= s[part]
            slope *= flat_up[part]
            slope *= d_flat[part]
            swish *= d_flat[part]
        return d_gate.reshape(gate.shape), d_up.reshape(up.shape)

    return out.reshape(gate.shape), backward
