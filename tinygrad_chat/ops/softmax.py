"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module


@differentiable
def softmax(x: Any, *, axis: int = -1):
    """e^x over its sum along `axis`: positive, summing to 1. The maximum is subtracted first, so nothing overflows."""
    if not x.size:
        return _of_nothing(x)
    e = array_module(x).exp(x - x.max(axis=axis, keepdims=True))
    out = e / e.sum(axis=axis, keepdims=True)

    def backward(d_out):
        return (out * (d_out - (d_out * out).sum(axis=axis, keepdims=True)),)

    return out, backward


@differentiable
def log_softmax(x: Any, *, axis: int = -1):
    """The logarithm of softmax(x), computed without dividing small numbers."""
    if not x.size:
        return _of_nothing(x)
    xp = array_module(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    out = shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))

    def backward(d_out):
        return (d_out - xp.exp(out) * d_out.sum(axis=axis, keepdims=True),)

    return out, backward


def _of_nothing(x: Any):
    """An empty array has no maximum, and nothing to normalise."""

    def backward(d_out):
        return (d_out,)

    return x.copy(), backward
