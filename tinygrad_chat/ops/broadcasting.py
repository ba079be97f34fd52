"""Broadcasting copies; the gradient of a copy is a sum. The only place that works out which axes to sum over."""

from __future__ import annotations

from typing import Any

import numpy as np


def sum_to(gradient: Any, like: Any) -> Any:
    """Sum `gradient` over the axes along which `like` was broadcast to its shape; the result has `like`'s shape."""
    shape = np.shape(like)
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    stretched = tuple(added + axis for axis, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=(*range(added), *stretched), keepdims=True).reshape(shape)
