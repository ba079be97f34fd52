"""Stochastic gradient descent with momentum (Polyak's heavy ball)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_chat.optim.optimizer import Movable, Optimizer, StepScalars, if_finite, scaled
from tinygrad_chat.optim.state import copy_to_host, flush_negligible, overwrite
from tinygrad_chat.option import expect


class SGD(Optimizer):
    """Step each parameter by its velocity: the gradient plus `momentum` times the last velocity."""

    def __init__(self, parameters: Movable, *, momentum: float = 0.9) -> None:
        super().__init__(parameters)
        expect("SGD: momentum", momentum, minimum=0, below=1)
        self.momentum = momentum
        self.velocity = parameters.backend.xp.zeros_like(parameters.data)
        self._scalars = StepScalars(parameters, 1, 1)

    def prepare(self, learning_rate: float, position: int = 0) -> None:
        """Take the learning rate; `position` is unused, as there are no schedules."""
        self._scalars.set([(learning_rate,)])

    def update(self, grad_scale: Any = None) -> None:
        """Update every parameter once."""
        parameters, rate = self.parameters, self._scalars[0][0]
        velocity = self.velocity * self.momentum
        velocity += scaled(parameters.gradient, grad_scale, velocity)
        flush_negligible((velocity,))
        self.velocity[...] = if_finite(grad_scale, velocity, self.velocity)
        parameters.data -= if_finite(grad_scale, rate * velocity, parameters.backend.xp.zeros_like(velocity))
        parameters.refresh_compute_weights()

    def state(self) -> dict[str, np.ndarray]:
        """Return the velocity."""
        return copy_to_host({"velocity": self.velocity})

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Load `state`. Raises CheckpointError if it does not fit."""
        overwrite({"velocity": self.velocity}, state)
