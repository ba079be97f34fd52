"""Ops as the operators and methods of a node: `x + y`, `x.exp()`, `x.sum(axis=0)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from tinygrad_chat import ops
from tinygrad_chat.autograd import ArrayNode
from tinygrad_chat.errors import ShapeError


class OpMethods(ArrayNode):
    """A node with an array as its `data`, and the ops as its operators and methods."""

    __slots__ = ()

    def __add__(self, other: Any) -> Self:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Self:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Self:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Self:
        return ops.subtract(other, self)

    def __mul__(self, other: Any) -> Self:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Self:
        return ops.multiply(other, self)

    def __truediv__(self, other: Any) -> Self:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return ops.divide(other, self)

    def __pow__(self, other: Any) -> Self:
        return ops.power(self, other)

    def __rpow__(self, other: Any) -> Self:
        return ops.power(other, self)

    def __matmul__(self, other: Any) -> Self:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return ops.matmul(other, self)

    def __neg__(self) -> Self:
        return ops.negative(self)

    def __abs__(self) -> Self:
        return ops.abs(self)

    def __getitem__(self, key: Any) -> Self:
        return ops.index(self, key=key)

    # Elementwise functions. An op that is a class attribute is a method.

    exp = ops.exp
    log = ops.log
    sqrt = ops.sqrt
    tanh = ops.tanh
    sigmoid = ops.sigmoid
    relu = ops.relu
    gelu = ops.gelu
    abs = ops.abs
    clip = ops.clip

    def where(self, condition: Any, other: Any) -> Self:
        """This node's elements where the condition is true, those of `other` elsewhere."""
        return ops.where(condition, self, other)

    # Functions along an axis.

    def sum(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The sum over `axis`, by default over all axes."""
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The mean over `axis`, by default over all axes."""
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Any = None, keepdims: bool = False, correction: int = 1) -> Self:
        """The variance over `axis`, by default over all axes, unbiased as in PyTorch; `correction=0` is NumPy's."""
        return ops.var(self, axis=axis, keepdims=keepdims, correction=correction)

    def std(self, axis: Any = None, keepdims: bool = False, correction: int = 1) -> Self:
        """The standard deviation: the square root of the variance."""
        return ops.std(self, axis=axis, keepdims=keepdims, correction=correction)

    def max(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The largest element over `axis`, by default over all axes."""
        return ops.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The smallest element over `axis`, by default over all axes."""
        return ops.min(self, axis=axis, keepdims=keepdims)

    def softmax(self, axis: int = -1) -> Self:
        """Positive numbers that sum to 1 along `axis`."""
        return ops.softmax(self, axis=axis)

    def log_softmax(self, axis: int = -1) -> Self:
        """The logarithm of `softmax`."""
        return ops.log_softmax(self, axis=axis)

    # Shapes.

    def reshape(self, *shape: int | Sequence[int]) -> Self:
        """The same elements in another shape; one size may be -1."""
        return ops.reshape(self, shape=sizes(shape))

    def transpose(self, *axes: int | Sequence[int]) -> Self:
        """The array with its axes in another order, by default reversed."""
        return ops.transpose(self, axes=sizes(axes) or None)

    @property
    def T(self) -> Self:  # noqa: N802 - NumPy's name
        """The array with its axes reversed."""
        return ops.transpose(self)

    def squeeze(self, axis: int) -> Self:
        """Remove an axis of size 1."""
        before, shape = _checked_axis("squeeze", axis, self.data.ndim), self.data.shape
        if shape[before] != 1:
            raise ShapeError(f"squeeze: expected size 1 along axis {axis}, received shape {shape}")
        return self[(slice(None),) * before + (0,)]

    def unsqueeze(self, axis: int) -> Self:
        """Insert a new axis of size 1, which has index `axis` in the result."""
        before = _checked_axis("unsqueeze", axis, self.data.ndim + 1)
        return self[(slice(None),) * before + (None,)]


def sizes(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the sizes that were passed as f(2, 3) or f((2, 3))."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], (list, tuple)) else given


def _checked_axis(name: str, axis: int, count: int) -> int:
    if not -count <= axis < count:
        raise ShapeError(f"{name}: expected an axis from {-count} to {count - 1}, received {axis}")
    return axis % count
