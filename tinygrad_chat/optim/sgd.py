"""Stochastic gradient descent with momentum (Polyak's heavy ball)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_chat.nn import Parameters
from tinygrad_chat.optim.state import copy_to_host, overwrite


class SGD:
    """Step each parameter by its velocity: the gradient plus `momentum` times the last velocity."""

    def __init__(self, parameters: Parameters, *, momentum: float = 0.9) -> None:
        self.parameters = parameters
        self.momentum = momentum
        self.velocity = parameters.backend.xp.zeros_like(parameters.data)

    def step(self, learning_rate: float, norm: Any = None, position: int = 0) -> None:
        """Move every parameter once, unless the gradient's `norm` is no number. On a device this waits for it.

        `position` plays no part: there are no schedules of its own.
        """
        if norm is not None and not math.isfinite(norm):
            return
        self.velocity *= self.momentum
        self.velocity += self.parameters.gradient
        self.parameters.data -= learning_rate * self.velocity
        self.parameters.refresh_compute_weights()

    def state(self) -> dict[str, np.ndarray]:
        """Return the velocity."""
        return copy_to_host({"velocity": self.velocity})

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`. Raises CheckpointError where it does not fit."""
        overwrite({"velocity": self.velocity}, state, self.parameters.backend)
