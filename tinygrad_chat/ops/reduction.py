"""Reductions over one axis, several or all: sum, mean, var, std, max, min."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError

Axis = int | tuple[int, ...] | None


def _reduced_axes(shape: tuple[int, ...], axis: Axis) -> set[int]:
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return {a % len(shape) for a in axes} if shape else set()


def _kept_shape(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """Return `shape` with the reduced axes kept, at size 1."""
    reduced = _reduced_axes(shape, axis)
    return tuple(1 if a in reduced else size for a, size in enumerate(shape))


def _count(op: str, shape: tuple[int, ...], axis: Axis, least: int) -> int:
    """Return how many elements are reduced to one. Raises ShapeError if there are fewer than `least`."""
    count = math.prod(shape[a] for a in _reduced_axes(shape, axis))
    if count < least:
        raise ShapeError(f"{op}: expected at least {least} elements to reduce, received {count}")
    return count


def _spread(array: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """Broadcast a reduction's result (or its gradient) back to the `shape` of its input, as a view."""
    xp = array_module(array)
    return xp.broadcast_to(xp.reshape(array, _kept_shape(shape, axis)), shape)


@differentiable
def sum(x: Any, *, axis: Axis = None, keepdims: bool = False):
    """The sum over `axis` (None: over all)."""

    def backward(d_out):
        return (_spread(d_out, x.shape, axis),)

    return x.sum(axis=axis, keepdims=keepdims), backward


@differentiable
def mean(x: Any, *, axis: Axis = None, keepdims: bool = False):
    """The mean over `axis` (None: over all). Raises ShapeError if there is nothing to reduce (PyTorch: nan)."""
    count = _count("mean", x.shape, axis, 1)

    def backward(d_out):
        return (_spread(d_out / count, x.shape, axis),)

    return x.mean(axis=axis, keepdims=keepdims), backward


@differentiable
def var(x: Any, *, axis: Axis = None, keepdims: bool = False, correction: int = 1):
    """The variance over `axis` (None: over all): the sum of squared deviations from the mean, divided by their number
    minus `correction`. As in PyTorch that is 1, which makes the estimate unbiased; NumPy's is 0.

    Raises ShapeError if the divisor is not positive (PyTorch: nan).
    """
    divisor = _count("var", x.shape, axis, correction + 1) - correction
    centred = x - x.mean(axis=axis, keepdims=True)

    def backward(d_out):
        return (_spread(d_out * (2 / divisor), x.shape, axis) * centred,)

    return (centred * centred).sum(axis=axis, keepdims=keepdims) / divisor, backward


@differentiable
def std(x: Any, *, axis: Axis = None, keepdims: bool = False, correction: int = 1):
    """The standard deviation, the square root of `var`; where it is 0 the gradient is 0. Squares are computed in x's
    own type, so it is infinite for deviations whose squares overflow (PyTorch widens float32, too)."""
    variance, var_backward = var.reference(x, axis=axis, keepdims=keepdims, correction=correction)
    xp = array_module(x)
    out = xp.sqrt(variance)

    def backward(d_out):
        return var_backward(d_out / (2 * xp.where(out == 0, math.inf, out)))

    return out, backward


@differentiable
def max(x: Any, *, axis: Axis = None, keepdims: bool = False):
    """The largest element over `axis` (None: of all). Ties share the gradient equally, as in PyTorch's amax."""
    out = x.max(axis=axis, keepdims=keepdims)

    def backward(d_out):
        return (_shared_by_equals(d_out, out, x, axis),)

    return out, backward


@differentiable
def min(x: Any, *, axis: Axis = None, keepdims: bool = False):
    """The smallest element over `axis` (None: of all). Ties share the gradient equally."""
    out = x.min(axis=axis, keepdims=keepdims)

    def backward(d_out):
        return (_shared_by_equals(d_out, out, x, axis),)

    return out, backward


def _shared_by_equals(d_out: Any, out: Any, x: Any, axis: Axis) -> Any:
    """Divide the gradient equally among the elements that are equal to the chosen one."""
    chosen = x == _spread(out, x.shape, axis)
    share = chosen / chosen.sum(axis=axis, keepdims=True).astype(x.dtype)
    return _spread(d_out, x.shape, axis) * share
