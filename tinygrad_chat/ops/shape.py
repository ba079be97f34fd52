"""Ops that only rearrange elements: reshape, transpose, index, split, concatenate, stack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError


@differentiable
def reshape(x: Any, *, shape: int | tuple[int, ...]):
    """The same elements in the same order, with another `shape`; one size may be -1."""

    def backward(d_out):
        return (d_out.reshape(x.shape),)

    return x.reshape(shape), backward


@differentiable
def transpose(x: Any, *, axes: tuple[int, ...] | None = None):
    """x with its axes in the order `axes`, by default reversed; a view, not a copy."""

    def backward(d_out):
        if axes is None:
            return (d_out.transpose(),)
        to = [axis % x.ndim for axis in axes]
        return (d_out.transpose([to.index(axis) for axis in range(x.ndim)]),)

    return x.transpose(axes), backward


@differentiable
def index(x: Any, *, key: Any):
    """x[key] for integers, slices, masks and integer arrays; an element selected twice receives both gradients."""

    def backward(d_out):
        xp = array_module(x)
        d_x = xp.zeros_like(x, dtype=d_out.dtype)  # a bfloat16 weight has a float32 gradient
        if takes_each_once(key):
            d_x[key] = d_out
        else:
            xp.add.at(d_x, key, d_out)
        return (d_x,)

    return x[key], backward


def takes_each_once(key: Any) -> bool:
    """Return whether x[key] is a view: no element is selected twice."""
    parts = key if isinstance(key, tuple) else (key,)
    return all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts)


def split(x: Any, sizes: Sequence[int], axis: int = 0) -> list[Any]:
    """Split x along `axis` into slices of these sizes; `concatenate` is the inverse."""
    axis = axis % len(x.shape)
    ends = list(accumulate(sizes))
    if sum(sizes) != x.shape[axis]:
        raise ShapeError(f"split: expected sizes that sum to {x.shape[axis]}, received {list(sizes)}")
    before = (slice(None),) * axis
    return [index(x, key=(*before, slice(end - size, end))) for size, end in zip(sizes, ends, strict=True)]


@differentiable
def concatenate(*pieces: Any, axis: int = 0):
    """Join the pieces, which may also come as one list, end to end along `axis`; all other sizes must be equal."""

    def backward(d_out):
        ends = list(accumulate(piece.shape[axis] for piece in pieces))[:-1]
        return tuple(array_module(d_out).split(d_out, ends, axis=axis))

    return _module_of("concatenate", pieces).concatenate(pieces, axis=axis), backward


@differentiable
def stack(*pieces: Any, axis: int = 0):
    """Join the pieces, which may also come as one list, along a new `axis`; all must have the same shape."""

    def backward(d_out):
        return tuple(array_module(d_out).moveaxis(d_out, axis, 0))

    return _module_of("stack", pieces).stack(pieces, axis=axis), backward


def rows_of(x: Any) -> Any:
    """View x (..., C) as a matrix (N, C), or copy it where no view exists; unlike in reshape(-1, C), C may be 0."""
    C = x.shape[-1]
    return x.reshape(-1, C) if C else x.reshape(math.prod(x.shape[:-1]), C)


def _module_of(op: str, pieces: Sequence[Any]) -> Any:
    if not pieces:
        raise ShapeError(f"{op}: expected at least one array, received none")
    return array_module(pieces[0])
