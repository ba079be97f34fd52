"""`Tensor`: an array with its place in the graph. Its operators and methods are ops, bound in ops/methods.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.autograd.sweep import PendingGradient, Rule, backpropagate_arrays, deliver_to_leaf
from tinygrad_chat.autograd.value import Node, births
from tinygrad_chat.backend import Backend, array_module, backend_of, get_backend, in_native_order, to_host
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.ops.methods import OpMethods, sizes

LONG = 100
"""`repr` abbreviates Tensors with more elements than this."""


class Tensor(OpMethods):
    """An array in a graph. After `backward()` on a result, `grad` of every leaf is an array of the leaf's shape.

    Tensors have gradients; a bare array or number in the same expression is a constant. Arrays keep their dtype;
    Python numbers and lists become float32. Integer arrays have no gradient and are refused.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> (x * x).sum().backward()
    >>> x.grad
    array([[2., 4.],
           [6., 8.]], dtype=float32)
    """

    __slots__ = ()
    __array_ufunc__ = None  # so that `array * tensor` calls Tensor.__rmul__ instead of looping over elements

    def __init__(self, data: Any, parents: Sequence[Node | None] = (), rule: Rule | None = None, op: str = "") -> None:
        if type(data) is not np.ndarray:
            data = _as_array(data)
        if rule is None:
            if data.dtype.kind not in "fV":  # V: bfloat16
                raise TypeError(_refusal(data.dtype))
            data = in_native_order(data)
        # ArrayNode.__init__, inlined: every op creates a Tensor, and a small model's step does little else.
        self.data = data
        self.grad = None
        self.parents = parents
        self.rule = rule
        self.op = op
        self.birth = next(births)

    @classmethod
    def zeros(cls, *shape: int | Sequence[int], dtype: Any = np.float32, backend: Backend | str = "numpy") -> Tensor:
        """Return zeros of a shape, given as `zeros(2, 3)` or `zeros((2, 3))`."""
        return cls(_open(backend).xp.zeros(sizes(shape), dtype))

    @classmethod
    def ones(cls, *shape: int | Sequence[int], dtype: Any = np.float32, backend: Backend | str = "numpy") -> Tensor:
        """Return ones of a shape."""
        return cls(_open(backend).xp.ones(sizes(shape), dtype))

    @classmethod
    def randn(
        cls,
        *shape: int | Sequence[int],
        seed: int | np.random.Generator,
        dtype: Any = np.float32,
        backend: Backend | str = "numpy",
    ) -> Tensor:
        """Draw from the standard normal distribution, the same on every back end; `seed` may be a generator."""
        drawn = np.random.default_rng(seed).standard_normal(sizes(shape))
        return cls(_open(backend).xp.asarray(drawn, dtype))

    @classmethod
    def from_values(cls, values: Any) -> Tensor:
        """Stack scalar Values (nested lists or an object array) into one Tensor; gradients flow back to them."""
        array = np.asarray(values, dtype=object)
        parents = tuple(array.ravel())
        data = np.array([value.data for value in parents], dtype=np.float64).reshape(array.shape)
        return cls(data, parents, lambda d_out: tuple(float(d) for d in to_host(d_out).ravel()), "from_values")

    def accumulate(self, gradient: Any) -> None:
        """Add a gradient to this leaf's `grad`, in place if it has one: it may be a view of a larger buffer."""
        self._expect_fitting(gradient)
        if isinstance(gradient, PendingGradient):
            if self.grad is None:
                self.grad = gradient.array()
            else:
                gradient.add_to(self.grad)
        elif self.grad is None:
            # A copy: the rule may have returned the same array for others. A bfloat16 weight has a float32 gradient.
            dtype = self.dtype if self.dtype.kind == "f" else None
            self.grad = array_module(self.data).array(gradient, dtype, order="C")
        else:
            self.grad += gradient

    def replace_grad(self, gradient: Any) -> None:
        """Write a gradient over this leaf's `grad`, which is an array already, without reading it."""
        self._expect_fitting(gradient)
        if isinstance(gradient, PendingGradient):
            gradient.write_to(self.grad)
        else:
            self.grad[...] = gradient

    def _expect_fitting(self, gradient: Any) -> None:
        if gradient.shape != self.data.shape:
            raise ShapeError(
                f"backward: a leaf of shape {self.shape} received a gradient of shape {gradient.shape}; the rule of "
                "what was computed from it is wrong, or returned an array instead of a tuple"
            )

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
        """Add the gradient of this Tensor with respect to each leaf to that leaf's `grad`.

        `seed` is the upstream gradient of this Tensor, by default 1 for a scalar. The graph is released during the
        sweep, to free memory; with `keep_graph` it stays, inner Tensors keep their gradients too, and backward may be
        called again. `deliver(leaf, gradient)` replaces adding to `grad`.
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

    def detach(self) -> Tensor:
        """Return a leaf with the same data: no gradient flows back through it."""
        return type(self)(self.data)

    def numpy(self) -> np.ndarray:
        """Return the array in host memory."""
        return to_host(self.data)

    def item(self) -> float:
        """Return the only element as a Python number; on a GPU this blocks until it is computed."""
        if self.size != 1:
            raise ShapeError(f"item: expected one element, received shape {self.shape}; reduce it, or use numpy()")
        return self.data.item()

    __float__ = item

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(f"bool: expected one element, received shape {self.shape}; ask (x > 0).any() or .all()")
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> None:
        raise TypeError(
            "Tensor: a NumPy array would carry no gradient; ops.stack and ops.concatenate join Tensors, and numpy() "
            "returns the numbers alone"
        )

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a Tensor of no axes has no length")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))

    def argmax(self, axis: int | None = None) -> Any:
        """Return the index of the largest element along `axis`, by default of the flattened Tensor, as a bare array."""
        return self.data.argmax(axis=axis)

    # Comparisons are elementwise and return bare boolean arrays. Tensors can still be members of sets and keys of
    # dictionaries, by identity.

    __hash__ = Node.__hash__

    def __eq__(self, other: object) -> Any:
        return self.data == _beside(self, other)

    def __ne__(self, other: object) -> Any:
        return self.data != _beside(self, other)

    def __lt__(self, other: Any) -> np.ndarray:
        return self.data < _beside(self, other)

    def __le__(self, other: Any) -> np.ndarray:
        return self.data <= _beside(self, other)

    def __gt__(self, other: Any) -> np.ndarray:
        return self.data > _beside(self, other)

    def __ge__(self, other: Any) -> np.ndarray:
        return self.data >= _beside(self, other)

    def __repr__(self) -> str:
        numbers = np.array2string(to_host(self.data), separator=", ", prefix="Tensor(", precision=4, threshold=LONG)
        shape = f", shape={self.shape}" if self.size > LONG else ""
        computed = f", op={self.op}" if self.op else ""
        return f"Tensor({numbers}{shape}, dtype={self.dtype}{computed})"


def _as_array(data: Any) -> Any:
    """Convert anything but a plain NumPy array to an array; Python numbers and lists of them become float32."""
    if isinstance(data, Tensor):
        raise TypeError("Tensor: expected numbers or an array, received a Tensor; use it as it is, or detach() it")
    if hasattr(data, "ndim"):
        return array_module(data).asarray(data)  # reducing an array to one number yields a NumPy scalar
    array = np.asarray(data)
    if array.dtype.kind not in "fiub":
        raise TypeError(_refusal(array.dtype))
    return array.astype(np.float32)


def _refusal(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "iub":
        return "Tensor: expected floats, received integers, which have no gradient; pass a bare array"
    return f"Tensor: expected numbers, received an array of {dtype}; Tensor.from_values stacks Values"


def _open(backend: Backend | str) -> Backend:
    return get_backend(backend) if isinstance(backend, str) else backend


def _beside(tensor: Tensor, x: Any) -> Any:
    """Return the other operand of a comparison, with a scalar cast to the Tensor's precision, as in ops."""
    if isinstance(x, Tensor):
        return x.data
    is_number = getattr(x, "ndim", None) == 0 and x.dtype.kind == "f"
    return x.astype(tensor.dtype) if is_number else x
