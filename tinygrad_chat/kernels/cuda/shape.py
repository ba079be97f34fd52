"""Parts of arrays, whose gradients are added to those of the whole where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import PendingGradient
from tinygrad_chat.backend import array_module
from tinygrad_chat.ops import shape


def index(x: Any, *, key: Any):
    """`ops.index`: by a key that takes each element at most once, a view. Otherwise gradients are summed in float32:
    CuPy adds to no place of bfloat16."""
    out, backward = shape.index.reference(x, key=key)
    if shape.takes_each_once(key):
        return out, lambda d_out: (PendingPart(d_out, x.shape, key),)

    def backward_in_float32(d_out: Any):
        (d_x,) = backward(d_out.astype(np.float32))
        return (d_x.astype(d_out.dtype),)

    return out, backward_in_float32


class PendingPart(PendingGradient):
    """The gradient of an array of which only a part was used: `d_out` there, and 0 elsewhere."""

    def __init__(self, d_out: Any, shape: tuple[int, ...], key: Any) -> None:
        self._d_out, self.shape, self._key = d_out, shape, key

    def add_to(self, buffer: Any) -> None:
        """Add the gradient to the buffer's part."""
        part = buffer[self._key]
        part += self._d_out

    def array(self) -> Any:
        """Return the gradient of the whole."""
        d_x = array_module(self._d_out).zeros(self.shape, self._d_out.dtype)
        d_x[self._key] = self._d_out
        return d_x

    def plus(self, total: Any, *, own: bool) -> Any:
        """Add the gradient to the part of `total`, or of a copy."""
        total = total if own else total.copy()
        self.add_to(total)
        return total
