"""Reductions over one axis, several or all: sum, mean, max."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module

Axis = int | tuple[int, ...] | None


def _spread(array: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """View a reduction's result (or its gradient) at the shape of the input that it was reduced from."""
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    kept = {a % len(shape) for a in axes} if shape else set()
    xp = array_module(array)
    ones = tuple(1 if a in kept else size for a, size in enumerate(shape))
    return xp.broadcast_to(xp.reshape(array, ones), shape)


@differentiable
def sum(x: Any, *, axis: Axis = None, keepdims: bool = False):
    """The sum over `axis` (None: over all)."""

    def backward(d_out):
        return (_spread(d_out, x.shape, axis),)

    return x.sum(axis=axis, keepdims=keepdims), backward


@differentiable
def mean(x: Any, *, axis: Axis = None, keepdims: bool = False):
    """The mean over `axis` (None: over all)."""
    out = x.mean(axis=axis, keepdims=keepdims)

    def backward(d_out):
        count = x.size // (math.prod(out.shape) or 1)
        return (_spread(d_out / count, x.shape, axis),)

    return out, backward


@differentiable
def max(x: Any, *, axis: Axis = None, keepdims: bool = False):
    """The largest element over `axis` (None: of all). Where several are largest, they share the gradient equally."""
    out = x.max(axis=axis, keepdims=keepdims)

    def backward(d_out):
        largest = x == _spread(out, x.shape, axis)
        share = largest / largest.sum(axis=axis, keepdims=True).astype(x.dtype)
        return (_spread(d_out, x.shape, axis) * share,)

    return out, backward
