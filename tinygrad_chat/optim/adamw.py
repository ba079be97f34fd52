"""AdamW (Loshchilov & Hutter, arXiv:1711.05101)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_chat.nn import Parameters
from tinygrad_chat.optim.state import load_state, state_of


def adamw_update(
    data: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    *,
    compute_weights: Any = None,
    norm: Any = None,
    decayed: int,
    shrink: float,
    rate: float,
    beta_1: float,
    beta_2: float,
    correction: float,
    epsilon: float,
) -> None:
    """Update flat arrays in place: the two running averages of the gradient, then the weights.

    The first `decayed` weights are multiplied by `shrink`, 1 less the decay. `rate` is the learning rate with the first
    average's correction in it, `correction` the second's: both averages began at 0, and these undo that pull. Where
    there is a `copy` of the weights in another type, it follows them. Nothing changes where the gradient's `norm`, if
    it is given, is no number.
    """
    if norm is not None and not math.isfinite(norm):
        return
    mean += (1 - beta_1) * (gradient - mean)
    square += (1 - beta_2) * (gradient * gradient - square)
    data[:decayed] *= shrink
    data -= rate * mean / ((square * correction) ** 0.5 + epsilon)
    if compute_weights is not None:
        compute_weights[...] = data


def step_settings(
    steps: int, learning_rate: float, *, betas: tuple[float, float], weight_decay: float, epsilon: float
) -> dict[str, float]:
    """Return what `adamw_update` takes for step number `steps`, counted from 1: decay and corrections worked out."""
    beta_1, beta_2 = betas
    return {
        "shrink": 1 - learning_rate * weight_decay,
        "rate": learning_rate / (1 - beta_1**steps),
        "beta_1": beta_1,
        "beta_2": beta_2,
        "correction": 1 / (1 - beta_2**steps),
        "epsilon": epsilon,
    }


class AdamW:
    """Step each parameter by its mean gradient over the root of its mean squared gradient; decay matrices towards 0.

    The decay acts on the weights themselves, not through the gradient, and leaves gains and biases alone.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        self.parameters = parameters
        self.betas = betas
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.steps = 0
        self.mean = parameters.backend.xp.zeros_like(parameters.data)
        self.square = parameters.backend.xp.zeros_like(parameters.data)

    def step(self, learning_rate: float, norm: Any = None, position: int = 0) -> None:
        """Move every parameter once, unless the gradient's `norm` is no number.

        `position` plays no part: there are no schedules of its own.
        """
        if isinstance(norm, float | np.floating):
            if not math.isfinite(norm):
                return
            norm = None  # on a device it is an array, and its kernel looks
        self.steps += 1
        parameters = self.parameters
        parameters.kernel_of(adamw_update)(
            parameters.data,
            parameters.gradient,
            self.mean,
            self.square,
            compute_weights=parameters.compute_weights,
            norm=norm,
            decayed=parameters.matrices.stop,
            **step_settings(
                self.steps, learning_rate, betas=self.betas, weight_decay=self.weight_decay, epsilon=self.epsilon
            ),
        )

    def state(self) -> dict[str, np.ndarray]:
        """Return the two averages and the number of steps taken."""
        return state_of(self._averages(), self.steps)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`. Raises CheckpointError where it does not fit."""
        self.steps = load_state(self._averages(), state, self.parameters.backend)

    def _averages(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "square": self.square}
