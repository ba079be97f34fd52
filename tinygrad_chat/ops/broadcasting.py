"""Combine arrays of different shapes or types in one formula.

Broadcasting copies elements, so their gradients are sums. Only this file works out which axes to sum over.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def sum_to(gradient: Any, like: Any) -> Any:
    """Sum `gradient` over the axes along which `like` was broadcast. The result has the shape of `like`, and its type
    if the gradient's is wider."""
    shape = np.shape(like)
    gradient = _narrowed(gradient, like)
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    stretched = tuple(added + axis for axis, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=(*range(added), *stretched), keepdims=True).reshape(shape)


def _narrowed(gradient: Any, like: Any) -> Any:
    dtype = getattr(like, "dtype", gradient.dtype)
    if dtype is gradient.dtype or dtype.kind != "f" or dtype.itemsize >= gradient.dtype.itemsize:
        return gradient
    return gradient.astype(dtype)


def promote(x: Any, y: Any) -> tuple[Any, Any]:
    """Return both operands, integers cast to the float type of the other, as in PyTorch: NumPy would widen float32."""
    x_type, y_type = getattr(x, "dtype", None), getattr(y, "dtype", None)
    if x_type is y_type or x_type is None or y_type is None:
        return x, y
    if y_type.kind in "iu" and x_type.kind in "fV":
        return x, y.astype(x_type)
    if x_type.kind in "iu" and y_type.kind in "fV":
        return x.astype(y_type), y
    return x, y
