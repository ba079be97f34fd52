"""Arithmetic and choice, with broadcasting: add, subtract, multiply, divide, power, negative, where."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.ops.broadcasting import promote, sum_to


@differentiable
def add(x: Any, y: Any):
    """x + y."""
    x, y = promote(x, y)

    def backward(d_out):
        return sum_to(d_out, x), sum_to(d_out, y)

    return x + y, backward


@differentiable
def subtract(x: Any, y: Any):
    """x - y."""
    x, y = promote(x, y)

    def backward(d_out):
        return sum_to(d_out, x), sum_to(-d_out, y)

    return x - y, backward


@differentiable
def multiply(x: Any, y: Any):
    """x * y, element by element."""
    x, y = promote(x, y)

    def backward(d_out):
        return sum_to(d_out * y, x), sum_to(d_out * x, y)

    return x * y, backward


@differentiable
def divide(x: Any, y: Any):
    """x / y."""
    x, y = promote(x, y)
    out = x / y

    def backward(d_out):
        return sum_to(d_out / y, x), sum_to(-d_out * (out / y), y)

    return out, backward


@differentiable
def power(x: Any, y: Any):
    """x to the power y. Where x is not positive, the exponent's gradient is taken as 0 (PyTorch: nan below 0)."""
    x, y = promote(x, y)
    out = x**y

    def backward(d_out):
        xp = array_module(out)
        base, exponent = xp.asarray(x, dtype=out.dtype), xp.asarray(y, dtype=out.dtype)
        d_x = d_out * exponent * base ** xp.where(exponent == 0, 0, exponent - 1)  # x ** 0 has slope 0 everywhere
        d_y = xp.where(base <= 0, 0, d_out * out * xp.log(xp.where(base <= 0, 1, base)))
        return sum_to(d_x, x), sum_to(d_y, y)

    return out, backward


@differentiable
def negative(x: Any):
    """-x."""

    def backward(d_out):
        return (-d_out,)

    return -x, backward


@differentiable
def where(condition: Any, x: Any, y: Any):
    """x where `condition`, booleans without a gradient, is true, and y elsewhere; all three broadcast."""
    if not isinstance(condition, bool) and getattr(condition, "dtype", None) != np.dtype(bool):
        raise TypeError("where: expected booleans as the condition, such as x > 0, received another type")
    x, y = promote(x, y)
    xp = array_module(condition)

    def backward(d_out):
        return None, sum_to(xp.where(condition, d_out, 0), x), sum_to(xp.where(condition, 0, d_out), y)

    return xp.where(condition, x, y), backward
