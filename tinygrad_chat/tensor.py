"""`Tensor`: an array and its place in the graph. Its operators are the ops of `tinygrad_chat.ops`, bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd.sweep import ArrayNode, PendingGradient, Rule, backpropagate_arrays, deliver_to_leaf
from tinygrad_chat.autograd.value import Node
from tinygrad_chat.backend import Backend, array_module, backend_of, to_host
from tinygrad_chat.errors import ShapeError


class Tensor(ArrayNode):
    """An array in a graph. After `backward()` on a result, `grad` of every leaf is an array of its shape.

    A Tensor has a gradient; a bare array or number beside it is a constant. Arrays keep their dtype; Python numbers
    and lists become float32. Integers have no gradient and are refused.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> (x * x).sum().backward()
    >>> x.grad
    array([[2., 4.],
           [6., 8.]], dtype=float32)
    """

    __slots__ = ()
    __array_ufunc__ = None  # so that `array * tensor` comes to Tensor.__rmul__ instead of NumPy's loop over elements

    def __init__(self, data: Any, parents: Sequence[Node | None] = (), rule: Rule | None = None) -> None:
        if not hasattr(data, "ndim"):
            data = np.asarray(data, dtype=np.float32)
        if data.ndim == 0:
            data = array_module(data).asarray(data)  # a reduction to one number leaves a NumPy scalar
        ArrayNode.__init__(self, data, parents, rule)
        if data.dtype.kind in "iub":
            raise TypeError("Tensor: expected floats, received integers, which have no gradient; pass a bare array")

    @classmethod
    def from_values(cls, values: Any) -> Tensor:
        """Stack scalar Values (nested lists or an object array) into one Tensor; gradients flow through the seam."""
        array = np.asarray(values, dtype=object)
        parents = tuple(array.ravel())
        data = np.array([value.data for value in parents], dtype=np.float64).reshape(array.shape)
        return cls(data, parents, lambda d_out: tuple(float(d) for d in to_host(d_out).ravel()))

    def accumulate(self, gradient: Any) -> None:
        """Add a leaf's gradient to `grad`, in place where there is one: it may be a view into a larger buffer."""
        if gradient.shape != self.data.shape:
            raise ShapeError(
                f"backward: a leaf of shape {self.shape} received a gradient of shape {gradient.shape}; the rule of "
                "what was computed from it is wrong, or returned an array instead of a tuple"
            )
        if isinstance(gradient, PendingGradient):
            if self.grad is None:
                self.grad = gradient.array()
            else:
                gradient.add_to(self.grad)
        elif self.grad is None:
            self.grad = array_module(self.data).array(gradient)  # a copy: a rule may have handed it to others too
        else:
            self.grad += gradient

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""
        return self.data.dtype

    @property
    def backend(self) -> Backend:
        """The back end whose memory the array lives in."""
        return backend_of(self.data)

    def backward(
        self, seed: Any = None, *, keep_graph: bool = False, deliver: Callable[[Node, Any], None] = deliver_to_leaf
    ) -> None:
        """Add to `grad` of every leaf the gradient of this Tensor with respect to it.

        `seed` is this Tensor's own gradient, 1 for a scalar. The graph is released on the way, to free memory;
        with `keep_graph` it stays, inner Tensors show their gradients too, and backward may be called again.
        `deliver` is called with each leaf and its gradient instead of adding to `grad`.
        """
        xp = array_module(self.data)
        if seed is None:
            if self.size != 1:
                raise ShapeError(
                    f"backward: expected a scalar, received shape {self.shape}; reduce it or pass the gradient as seed"
                )
            seed = xp.ones(self.shape, self.dtype)
        seed = xp.asarray(seed, dtype=self.dtype)
        if seed.shape != self.shape:
            raise ShapeError(f"backward: expected a seed of shape {self.shape}, received {seed.shape}")
        backpropagate_arrays(self, seed, release=not keep_graph, deliver=deliver)

    def item(self) -> float:
        """The one element as a Python number; on a GPU this waits for it."""
        return self.data.item()

    __float__ = item

    def numpy(self) -> np.ndarray:
        """The array in host memory."""
        return to_host(self.data)

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return ops.power(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.power(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __getitem__(self, key: Any) -> Tensor:
        return ops.index(self, key=key)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The sum over `axis`, over all by default."""
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The mean over `axis`, over all by default."""
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The largest element over `axis`, of all by default."""
        return ops.max(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int) -> Tensor:
        """The same elements as another shape; one size may be -1."""
        return ops.reshape(self, shape=shape)

    def transpose(self, *axes: int) -> Tensor:
        """The axes in another order, reversed by default."""
        return ops.transpose(self, axes=axes or None)

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's name
        """The axes reversed."""
        return ops.transpose(self)

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return ops.exp(self)

    def log(self) -> Tensor:
        """The natural logarithm of each element."""
        return ops.log(self)

    def sqrt(self) -> Tensor:
        """The square root of each element."""
        return ops.sqrt(self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent of each element."""
        return ops.tanh(self)

    def relu(self) -> Tensor:
        """Each element where it is positive, else 0."""
        return ops.relu(self)

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, dtype={self.dtype}, backend={self.backend.name})\n{self.data!r}"
