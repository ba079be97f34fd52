"""The interface of an optimiser, and what all optimisers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from tinygrad_chat.backend import Backend, Inbox, Slot, array_module


class Movable(Protocol):
    """What an optimiser needs of the parameters it updates: a model's `Parameters`, or one rank's share of them."""

    data: Any
    gradient: Any
    compute_weights: Any
    matrices: slice

    @property
    def backend(self) -> Backend:
        """The back end that holds the arrays."""
        ...

    def kernel_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the kernel to run on the arrays for a function that is not an op, or the function itself."""
        ...

    def masters(self) -> Iterator[tuple[str, Any]]:
        """Yield every parameter's name and its part of `data`, in its shape, or flat if the share has only part of
        it."""
        ...

    def refresh_compute_weights(self) -> None:
        """Copy the data to the compute weights, if there are any."""
        ...


class Optimizer(ABC):
    """Updates the parameters it was made with against their gradient.

    A step has two halves. `prepare` computes what changes from step to step, on the host; `update` does the work and
    reads those numbers from memory, so that on a device it can be captured once as a CUDA graph and replayed.
    """

    _scalars: StepScalars

    def __init__(self, parameters: Movable) -> None:
        self.parameters = parameters

    def step(self, learning_rate: float, position: int = 0) -> None:
        """Update every parameter once, with the gradients in the buffer.

        `position` is the position in training, counted from 0, for the optimiser's own schedules if it has any.
        """
        self.prepare(learning_rate, position)
        self.update()

    @property
    def scalars(self) -> StepScalars:
        """The numbers that `prepare` writes and `update` reads."""
        return self._scalars

    @abstractmethod
    def prepare(self, learning_rate: float, position: int = 0) -> None:
        """Write the scalars of the next update to where it reads them; the arguments are those of `step`."""

    @abstractmethod
    def update(self, grad_scale: Any = None) -> None:
        """Update every parameter once, with the prepared scalars.

        On a device `grad_scale`, a device array, is what the gradient is multiplied by; nothing changes if it is not
        finite, as the host cannot check it without synchronising. On the host the caller does both, and leaves it out.
        """

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of the optimiser's state in host memory."""

    @abstractmethod
    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Load `state`. Raises CheckpointError if it does not fit."""


class StepScalars:
    """Rows of numbers, of `kind` (shape, type), that change from step to step: Python floats on the host, one array on
    a device, which is sent whenever it is set."""

    def __init__(self, parameters: Movable, rows: int, columns: int) -> None:
        backend = parameters.backend
        self.kind = (rows, columns), parameters.data.dtype
        self._on_device: Inbox | Slot | None = None if backend.xp is np else Inbox(backend, *self.kind)
        self._rows: Sequence[Sequence[float]] = ()

    def set(self, rows: Sequence[Sequence[float]]) -> None:
        """Replace all numbers; on a device, in place, so that their address stays the same."""
        self._rows = rows
        if self._on_device is not None:
            self._on_device.write(rows)

    @contextmanager
    def within(self, slot: Slot) -> Iterator[None]:
        """Write the device's numbers to a slot of somebody's packet, and read them there, within this context."""
        own, self._on_device = self._on_device, slot
        try:
            yield
        finally:
            self._on_device = own

    def __getitem__(self, row: int) -> Any:
        return self._rows[row] if self._on_device is None else self._on_device.array[row]


def if_finite(grad_scale: Any, new: Any, old: Any) -> Any:
    """Return `new` if the gradient's scale is finite or None, else `old`; a device decides without synchronising."""
    if grad_scale is None:
        return new
    xp = array_module(old)
    return xp.where(xp.isfinite(grad_scale), new, old)


def scaled(gradient: Any, grad_scale: Any, otherwise: Any) -> Any:
    """Return the gradient times its scale, or as it is if that is None, or `otherwise` if that is not finite."""
    return gradient if grad_scale is None else if_finite(grad_scale, gradient * grad_scale, otherwise)
