"""What training asks of an optimiser, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tinygrad_chat.backend import Backend, array_module


class Movable(Protocol):
    """What an optimiser asks of what it moves: all of a model's `Parameters`, or one rank's share of them."""

    data: Any
    gradient: Any
    compute_weights: Any
    matrices: slice

    @property
    def backend(self) -> Backend:
        """Where the arrays are."""
        ...

    def kernel_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what to run on the arrays in place of a function that is no op."""
        ...

    def masters(self) -> Iterator[tuple[str, Any]]:
        """Yield every parameter's name and its part of `data`, in its shape, or flat where only a part of it is
        there."""
        ...

    def refresh_compute_weights(self) -> None:
        """Let the compute weights, if there are any, follow the data."""
        ...


class Optimizer(ABC):
    """Moves the parameters it was made with against their gradient.

    A step has two halves. `prepare` works out what changes from step to step, on the host; `update` does the work and
    reads those numbers from memory, so that on a device it can be recorded once and repeated.
    """

    def __init__(self, parameters: Movable) -> None:
        self.parameters = parameters

    def step(self, learning_rate: float, position: int = 0) -> None:
        """Move every parameter once, using the gradients that lie in the buffer.

        `position` is the step of training, counted from 0: where the optimiser's own schedules, if it has any, are.
        """
        self.prepare(learning_rate, position)
        self.update()

    @abstractmethod
    def prepare(self, learning_rate: float, position: int = 0) -> None:
        """Lay what the next update takes where it reads it; the arguments are those of `step`."""

    @abstractmethod
    def update(self, grad_norm: Any = None) -> None:
        """Move every parameter once, by what was prepared.

        On a device nothing moves where `grad_norm`, the norm of the gradient there, is not finite: the host cannot tell
        before. On the host the caller can, and leaves it out.
        """

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return a copy, in host memory, of all that the optimiser remembers between steps."""

    @abstractmethod
    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Remember what `state` says. Raises CheckpointError where it does not fit."""


class StepScalars:
    """Rows of numbers that change from step to step: Python's floats on the host, one array on a device."""

    def __init__(self, parameters: Movable, rows: int, columns: int) -> None:
        xp, dtype = parameters.backend.xp, parameters.data.dtype
        self._on_device = None if xp is np else xp.zeros((rows, columns), dtype)
        self._rows: Sequence[Sequence[float]] = ()

    def set(self, rows: Sequence[Sequence[float]]) -> None:
        """Replace all numbers; those on a device stay at their address."""
        self._rows = rows
        if self._on_device is not None:
            self._on_device[...] = array_module(self._on_device).asarray(np.array(rows, self._on_device.dtype))

    def __getitem__(self, row: int) -> Any:
        return self._rows[row] if self._on_device is None else self._on_device[row]


def if_finite(grad_norm: Any, new: Any, old: Any) -> Any:
    """Return `new` where the gradient's norm is finite, else `old`: the device chooses, and the host does not wait."""
    if grad_norm is None:
        return new
    xp = array_module(old)
    return xp.where(xp.isfinite(grad_norm), new, old)
