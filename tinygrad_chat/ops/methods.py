"""Ops as the operators and methods of a node: `x + y`, `x.exp()`, `x.sum(axis=0)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from tinygrad_chat import ops
from tinygrad_chat.autograd import ArrayNode
from tinygrad_chat.errors import ShapeError


class OpMethods(ArrayNode):
    """A node with an array as its `data`, and what can be computed from it."""

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

    # Functions of each element. An op that is an attribute of a class is a method.

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
        """Each element where the condition is true, else that of `other`."""
        return ops.where(condition, self, other)

    # Functions along an axis.

    def sum(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The sum over `axis`, over all by default."""
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The mean over `axis`, over all by default."""
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Any = None, keepdims: bool = False, correction: int = 1) -> Self:
        """The variance over `axis`, of all by default, unbiased as in PyTorch; `correction=0` is NumPy's."""
        return ops.var(self, axis=axis, keepdims=keepdims, correction=correction)

    def std(self, axis: Any = None, keepdims: bool = False, correction: int = 1) -> Self:
        """The root of the variance."""
        return ops.std(self, axis=axis, keepdims=keepdims, correction=correction)

    def max(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The largest element over `axis`, of all by default."""
        return ops.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The smallest element over `axis`, of all by default."""
        return ops.min(self, axis=axis, keepdims=keepdims)

    def softmax(self, axis: int = -1) -> Self:
        """Positive numbers that sum to 1 along `axis`."""
        return ops.softmax(self, axis=axis)

    def log_softmax(self, axis: int = -1) -> Self:
        """The logarithm of `softmax`."""
        return ops.log_softmax(self, axis=axis)

    # Shapes.

    def reshape(self, *shape: int | Sequence[int]) -> Self:
        """The same elements as another shape; one size may be -1."""
        return ops.reshape(self, shape=sizes(shape))

    def transpose(self, *axes: int | Sequence[int]) -> Self:
        """The axes in another order, reversed by default."""
        return ops.transpose(self, axes=sizes(axes) or None)

    @property
    def T(self) -> Self:  # noqa: N802 - NumPy's name
        """The axes reversed."""
        return ops.transpose(self)

    def squeeze(self, axis: int) -> Self:
        """Without an axis, whose size is 1."""
        before, shape = _checked_axis("squeeze", axis, self.data.ndim), self.data.shape
        if shape[before] != 1:
            raise ShapeError(f"squeeze: expected size 1 along axis {axis}, received shape {shape}")
        return self[(slice(None),) * before + (0,)]

    def unsqueeze(self, axis: int) -> Self:
        """With a new axis of size 1, which is the axis-th of the result."""
        before = _checked_axis("unsqueeze", axis, self.data.ndim + 1)
        return self[(slice(None),) * before + (None,)]


def sizes(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the sizes of a call f(2, 3) or f((2, 3))."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], (list, tuple)) else given


def _checked_axis(name: str, axis: int, count: int) -> int:
    if not -count <= axis < count:
        raise ShapeError(f"{name}: expected an axis from {-count} to {count - 1}, received {axis}")
    return axis % count
