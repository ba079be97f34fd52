"""`Parameters`: every weight of a model in one flat array, every gradient in another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from tinygrad_chat.autograd import Node, PendingGradient, current_mode
from tinygrad_chat.autograd.sweep import deliver_to_leaf
from tinygrad_chat.backend import Backend, Compute, default_compute, get_backend, to_host
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.formatting import short_list
from tinygrad_chat.tensor import Tensor


class Parameters:
    """Named Tensors, moved into one buffer; each becomes a view of it.

    `data` and `gradient` are flat arrays of `size` elements, computed on as `compute` says. Matrices come first and
    fill `matrices`, a slice of both; gains and biases follow. So weight decay, clipping, an optimiser's step and a
    checkpoint are each one array operation, whatever the model. Back end and `dtype` are those of the Tensors, at
    least float32, unless given. Gradients that the Tensors already have are moved too. `frozen` arrays stay where they
    are; only `state` and `load` use them.

    If `compute` works in another type than float32, there are also `compute_weights`, the data in that type, and the
    Tensors are views of these; the data, its gradient and checkpoints stay float32.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        frozen: Mapping[str, Any] = MappingProxyType({}),
        *,
        compute: Compute | None = None,
        dtype: Any = None,
    ) -> None:
        named = sorted(tensors.items(), key=lambda item: item[1].ndim < 2)  # stable: matrices first
        self._named, self._frozen = dict(named), dict(frozen)
        self.compute = compute or default_compute(named[0][1].backend if named else get_backend("numpy"))
        xp, dtype = self.backend.xp, dtype or np.result_type(np.float32, *{tensor.dtype for tensor in tensors.values()})
        self.size = sum(tensor.size for tensor in tensors.values())
        self.matrices = slice(0, sum(tensor.size for tensor in tensors.values() if tensor.ndim >= 2))
        self.data = xp.empty(self.size, dtype)
        self.gradient = xp.zeros(self.size, dtype)
        compute_dtype = self.compute.array_dtype if self.data.dtype == np.float32 else self.data.dtype
        self.compute_weights = None if compute_dtype == self.data.dtype else xp.empty(self.size, compute_dtype)
        weights = self.data if self.compute_weights is None else self.compute_weights
        for name, span in self.spans():
            tensor = self._named[name]
            self.data[span] = xp.asarray(tensor.data.ravel(), dtype)
            gradient = self.gradient[span].reshape(tensor.shape)
            if tensor.grad is not None:
                gradient += xp.asarray(tensor.grad, dtype)
            tensor.data, tensor.grad = weights[span].reshape(tensor.shape), gradient
        self.refresh_compute_weights()

    def __copy__(self) -> Parameters:
        raise TypeError("copy: a Tensor lies in one buffer only, so Parameters cannot be shallow-copied; use deepcopy")

    def __reduce__(self) -> tuple[Any, ...]:
        """Give deep copies and pickles buffers of their own, into which the copied Tensors are moved."""
        moved = functools.partial(type(self), compute=self.compute, dtype=self.data.dtype)
        return moved, (self._named, self._frozen), {"data": self.data, "gradient": self.gradient}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.data[...], self.gradient[...] = state["data"], state["gradient"]
        self.refresh_compute_weights()

    @property
    def backend(self) -> Backend:
        """The back end of the arrays."""
        return self.compute.backend

    @property
    def frozen(self) -> Mapping[str, Any]:
        """The frozen arrays, by name."""
        return self._frozen

    def spans(self) -> Iterator[tuple[str, slice]]:
        """Yield every parameter's name and its slice of the flat buffers."""
        start = 0
        for name, tensor in self._named.items():
            yield name, slice(start, start := start + tensor.size)

    def __len__(self) -> int:
        return len(self._named)

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __getitem__(self, name: str) -> Tensor:
        return self._named[name]

    def masters(self) -> Iterator[tuple[str, Any]]:
        """Yield every parameter's name and its part of `data`, in its shape."""
        for name, span in self.spans():
            yield name, self.data[span].reshape(self._named[name].shape)

    def refresh_compute_weights(self) -> None:
        """Copy the data to the compute weights, if there are any."""
        if self.compute_weights is not None:
            self.compute_weights[...] = self.data.astype(self.compute_weights.dtype)

    def finite(self) -> bool:
        """Return whether every parameter is finite."""
        return bool(self.backend.xp.isfinite(self.data).all())

    def kernel_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the kernel of a function that is not an op, or the function itself if it has none."""
        insisted = current_mode().kernels  # set within `kernels_of`
        return (self.compute.kernel_table if insisted is None else insisted).get(function, function)

    def zero_gradient(self) -> None:
        """Set every gradient to 0, before a backward pass that should not accumulate onto the last one."""
        self.gradient.fill(0)

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter and every frozen array in host memory, by name."""
        state = {name: np.array(to_host(master)) for name, master in self.masters()}
        return state | {name: np.array(to_host(array), self.data.dtype) for name, array in self._frozen.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Overwrite parameters and frozen arrays. Raises CheckpointError, and changes none, on a misfit."""
        expect_fitting({name: array.shape for name, array in (self._named | self._frozen).items()}, state)
        for name, master in (*self.masters(), *self._frozen.items()):
            master[...] = self.backend.xp.asarray(state[name], master.dtype)
        self.refresh_compute_weights()


def expect_fitting(shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless `weights` has exactly the names in `shapes`, with these shapes."""
    missing, unknown = shapes.keys() - weights.keys(), weights.keys() - shapes.keys()
    if missing or unknown:
        absent, strange = (short_list(sorted(names)) for names in (missing, unknown))
        raise CheckpointError(f"weights do not match the model: missing {absent}, unknown {strange}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise CheckpointError(f"weights do not match the model: {name} is {weights[name].shape}, expected {shape}")


class GradientBuffer:
    """A second gradient buffer for the same parameters, for a thread that works beside the one that fills their own."""

    def __init__(self, parameters: Parameters) -> None:
        self.flat = parameters.backend.xp.zeros_like(parameters.gradient)
        self._views: dict[Node, Any] = {
            parameters[name]: self.flat[span].reshape(parameters[name].shape) for name, span in parameters.spans()
        }

    def add(self, leaf: Node, gradient: Any) -> None:
        """Accumulate a parameter's gradient here, as a backward sweep's `deliver`; other leaves keep their own."""
        if leaf not in self._views:
            deliver_to_leaf(leaf, gradient)
        elif isinstance(gradient, PendingGradient):
            gradient.add_to(self._views[leaf])
        else:
            self._views[leaf] += gradient


class NewGradient:
    """A gradient that replaces the one in the parameters' buffer: the first of each weight is written there, and later
    ones are added. So the buffer is neither zeroed before a backward pass nor read for most of what is added to it.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._without: set[Node] = {parameters[name] for name in parameters}

    def deliver(self, leaf: Node, gradient: Any) -> None:
        """Write or add a gradient, as a backward sweep's `deliver`; a leaf that is no parameter accumulates its own."""
        if leaf in self._without and isinstance(leaf, Tensor):
            self._without.remove(leaf)
            leaf.replace_grad(gradient)
        else:
            deliver_to_leaf(leaf, gradient)

    def finish(self) -> None:
        """Zero the gradients of parameters that have received none, after the last backward pass."""
        for leaf in self._without:
            leaf.grad.fill(0)
        self._without.clear()
