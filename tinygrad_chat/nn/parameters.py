"""`Parameters`: every weight of a model in one flat array, every gradient in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.autograd import Node, PendingGradient, current_mode
from tinygrad_chat.backend import Backend, Compute, to_host
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.nn.module import Module
from tinygrad_chat.tensor import Tensor


class Parameters:
    """The parameters of a module, moved into one buffer; each Tensor becomes a named view of it.

    `data` and `gradient` are flat arrays of `size` elements, computed on as `compute` says. Matrices come first and
    fill `matrices`, a slice of both; gains and biases follow. So weight decay, clipping, an optimiser's step and a
    checkpoint are each one operation on an array, whatever the model.

    Where that is in another type than float32, there are also `compute_weights`: a copy of the data in that type, which
    the Tensors are views of; the data, its gradient and checkpoints stay float32.
    """

    def __init__(self, module: Module, *, compute: Compute | None = None, dtype: Any = np.float32) -> None:
        self.compute = compute or Compute.choose("numpy")
        named = sorted(module.named_parameters(), key=lambda item: item[1].ndim < 2)  # stable: matrices first
        xp = self.backend.xp
        self.size = sum(tensor.size for _, tensor in named)
        self.data = xp.empty(self.size, dtype)
        self.gradient = xp.zeros(self.size, dtype)
        self.compute_dtype = self.compute.array_dtype if self.data.dtype == np.float32 else self.data.dtype
        self.compute_weights = (
            None if self.compute_dtype == self.data.dtype else xp.empty(self.size, self.compute_dtype)
        )
        self.matrices = slice(0, sum(tensor.size for _, tensor in named if tensor.ndim >= 2))
        self._named: dict[str, Tensor] = {}
        start = 0
        for name, tensor in named:
            place = slice(start, start + tensor.size)
            self.data[place] = xp.asarray(tensor.data.ravel(), dtype)
            tensor.data = (self.data if self.compute_weights is None else self.compute_weights)[place].reshape(
                tensor.shape
            )
            tensor.grad = self.gradient[place].reshape(tensor.shape)
            self._named[name] = tensor
            start = place.stop
        self.refresh_compute_weights()

    @property
    def backend(self) -> Backend:
        """Where the arrays are."""
        return self.compute.backend

    def __len__(self) -> int:
        return len(self._named)

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __getitem__(self, name: str) -> Tensor:
        return self._named[name]

    def masters(self) -> Iterator[tuple[str, Any]]:
        """Yield every parameter's name and its place in `data`, in its shape."""
        start = 0
        for name, tensor in self._named.items():
            yield name, self.data[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size

    def refresh_compute_weights(self) -> None:
        """Let the copy, if there is one, follow the data."""
        if self.compute_weights is not None:
            self.compute_weights[...] = self.data.astype(self.compute_weights.dtype)

    def finite(self) -> bool:
        """Return whether every parameter is a number."""
        return bool(self.backend.xp.isfinite(self.data).all())

    def kernel_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what to run on the arrays in place of a function that is no op: its kernel, or itself without one."""
        insisted = current_mode().kernels  # within `kernels_of`
        return (self.compute.kernel_table if insisted is None else insisted).get(function, function)

    def zero_gradient(self) -> None:
        """Set every gradient to 0, before a backward pass that should not add to the last one."""
        self.gradient.fill(0)

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter in host memory, by name."""
        return {name: np.array(to_host(master)) for name, master in self.masters()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Overwrite the parameters. Raises CheckpointError where a name or a shape does not fit; then none changed."""
        missing, unknown = self._named.keys() - state.keys(), state.keys() - self._named.keys()
        if missing or unknown:
            raise CheckpointError(
                "weights do not fit the model: "
                f"missing {sorted(missing) or 'none'}, unknown {sorted(unknown) or 'none'}"
            )
        for name, tensor in self._named.items():
            if state[name].shape != tensor.shape:
                raise CheckpointError(
                    f"weights do not fit the model: {name} is {state[name].shape}, expected {tensor.shape}"
                )
        for name, master in self.masters():
            master[...] = self.backend.xp.asarray(state[name], master.dtype)
        self.refresh_compute_weights()


class GradientBuffer:
    """A second gradient of the same parameters, for a thread that works beside the one that fills their own."""

    def __init__(self, parameters: Parameters) -> None:
        self.flat = parameters.backend.xp.zeros_like(parameters.gradient)
        self._views: dict[Node, Any] = {}
        start = 0
        for name in parameters:
            tensor = parameters[name]
            self._views[tensor] = self.flat[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size

    def add(self, leaf: Node, gradient: Any) -> None:
        """Add to the gradient of a parameter, as a backward sweep's `deliver`; another leaf keeps its own."""
        if leaf not in self._views:
            leaf.accumulate(gradient)
        elif isinstance(gradient, PendingGradient):
            gradient.add_to(self._views[leaf])
        else:
            self._views[leaf] += gradient
