"""Elementwise functions."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError

# gelu(x) = x * P(X <= x) for a standard normal X; this is Hendrycks & Gimpel's tanh form of it (arXiv:1606.08415).
GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715
GELU_FLAT = 10.0  # beyond it the slope is 0 or 1 to the last digit; far beyond it, squares overflow


@differentiable
def exp(x: Any):
    """e to the power x."""
    out = array_module(x).exp(x)

    def backward(d_out):
        return (d_out * out,)

    return out, backward


@differentiable
def log(x: Any):
    """The natural logarithm."""

    def backward(d_out):
        return (d_out / x,)

    return array_module(x).log(x), backward


@differentiable
def sqrt(x: Any):
    """The square root."""
    out = array_module(x).sqrt(x)

    def backward(d_out):
        return (d_out / (2 * out),)

    return out, backward


@differentiable
def abs(x: Any):
    """The absolute value; the gradient at 0 is 0, at nan it is nan (PyTorch: 0)."""
    xp = array_module(x)

    def backward(d_out):
        return (d_out * xp.sign(x),)

    return xp.maximum(x, -x), backward


@differentiable
def clip(x: Any, *, min: float | None = None, max: float | None = None):
    """x limited to between `min` and `max`; the gradient is 0 outside the bounds and 1 at the bounds themselves."""
    xp = array_module(x)
    out = x if min is None else xp.maximum(x, float(min))
    out = out if max is None else xp.minimum(out, float(max))

    def backward(d_out):
        return (d_out * (out == x),)

    return out, backward


@differentiable
def tanh(x: Any):
    """The hyperbolic tangent."""
    out = array_module(x).tanh(x)

    def backward(d_out):
        return (d_out * (1 - out * out),)

    return out, backward


@differentiable
def sigmoid(x: Any):
    """1 / (1 + e^-x), or e^x / (1 + e^x), whichever does not overflow; small results keep full precision."""
    xp = array_module(x)
    e = xp.exp(-xp.maximum(x, -x))
    out = xp.where(x < 0, e, 1) / (1 + e)

    def backward(d_out):
        return (d_out * out * (1 - out),)

    return out, backward


@differentiable
def relu(x: Any):
    """x where it is positive, else 0; the gradient at 0 is 0. A nan stays nan, and its gradient passes through."""
    xp = array_module(x)

    def backward(d_out):
        return (xp.where(x <= 0, 0, d_out),)

    return xp.maximum(x, 0), backward


@differentiable
def squared_relu(x: Any):
    """relu(x) squared (So et al., Primer, arXiv:2109.08668)."""
    positive = array_module(x).maximum(x, 0)

    def backward(d_out):
        return (d_out * 2 * positive,)

    return positive * positive, backward


@differentiable
def swiglu(gate: Any, up: Any):
    """swish(gate) * up, with swish(gate) = gate * sigmoid(gate); both of the same shape (Shazeer, arXiv:2002.05202)."""
    check_gate(gate, up)
    s, _ = sigmoid.reference(gate)
    swish = gate * s

    def backward(d_out):  # derivation: docs/derivations/swiglu.md
        return d_out * up * (s * (1 + gate * (1 - s))), d_out * swish

    return swish * up, backward


def check_gate(gate: Any, up: Any) -> None:
    """Raise ShapeError unless `gate` and `up` have the same shape."""
    if gate.shape != up.shape:
        raise ShapeError(f"swiglu: expected gate and up of one shape, received {gate.shape} and {up.shape}")


@differentiable
def gelu(x: Any):
    """The Gaussian error linear unit in its tanh form, as GPT-2 uses it.

    Beyond 10 the gradient is 0 or 1, for huge numbers too (PyTorch: nan).
    """
    xp = array_module(x)
    inner = GELU_SCALE * (x + GELU_CUBIC * x * x * x)
    t = xp.tanh(inner)

    def backward(d_out):
        near = xp.minimum(xp.maximum(x, -GELU_FLAT), GELU_FLAT)
        slope = GELU_SCALE * (1 + 3 * GELU_CUBIC * near * near)  # of inner, for x
        return (d_out * (0.5 * (1 + t) + 0.5 * near * (1 - t * t) * slope),)

    return 0.5 * x * (1 + t), backward
