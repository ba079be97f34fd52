"""What training asks of an optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class Optimizer(Protocol):
    """Moves the parameters it was made with against their gradient."""

    def step(self, learning_rate: float, norm: Any = None, position: int = 0) -> None:
        """Move every parameter once, using the gradients that lie in the buffer.

        Nothing moves where `norm`, the gradient's, is no number: on a device the host cannot tell before. `position` is
        the step of training, counted from 0, whose place in the optimiser's own schedules this is, if it has any.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy, in host memory, of all that the optimiser remembers between steps."""
        ...

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Remember what `state` says. Raises CheckpointError where it does not fit."""
        ...
