"""Arithmetic with broadcasting: add, subtract, multiply, divide, power, negative."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.ops.broadcasting import sum_to


@differentiable
def add(x: Any, y: Any):
    """x + y."""

    def backward(d_out):
        return sum_to(d_out, x), sum_to(d_out, y)

    return x + y, backward


@differentiable
def subtract(x: Any, y: Any):
    """x - y."""

    def backward(d_out):
        return sum_to(d_out, x), sum_to(-d_out, y)

    return x - y, backward


@differentiable
def multiply(x: Any, y: Any):
    """x * y, element by element."""

    def backward(d_out):
        return sum_to(d_out * y, x), sum_to(d_out * x, y)

    return x * y, backward


@differentiable
def divide(x: Any, y: Any):
    """x / y."""

    def backward(d_out):
        d_x = d_out / y
        return sum_to(d_x, x), sum_to(-d_x * x / y, y)

    return x / y, backward


@differentiable
def power(x: Any, y: Any):
    """x to the power y. Where x is not positive, the exponent's gradient is taken as 0."""
    out = x**y

    def backward(d_out):
        xp = array_module(out)
        base, exponent = xp.asarray(x, dtype=out.dtype), xp.asarray(y, dtype=out.dtype)
        d_x = d_out * exponent * base ** xp.where(exponent == 0, 1, exponent - 1)  # 0, not nan, at 0 ** 0
        d_y = d_out * out * xp.log(xp.where(base > 0, base, 1))
        return sum_to(d_x, x), sum_to(d_y, y)

    return out, backward


@differentiable
def negative(x: Any):
    """-x."""

    def backward(d_out):
        return (-d_out,)

    return -x, backward
