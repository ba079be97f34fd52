"""AdamW (Loshchilov & Hutter, arXiv:1711.05101)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.optim.optimizer import Movable, Optimizer, StepScalars
from tinygrad_chat.optim.state import TRACES_LAST, drop_traces, load_state, state_of
from tinygrad_chat.option import expect


def adamw_update(
    data: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    scalars: Sequence[Any],
    *,
    decayed: int,
    compute_weights: Any = None,
    grad_norm: Any = None,
) -> None:
    """Update flat arrays in place: the two running averages of the gradient, then the weights.

    `scalars` are the six of `adamw_scalars`. The first `decayed` weights decay. Where there are `compute_weights`, the
    weights in another type, they follow. Nothing changes where the gradient's `grad_norm`, if it is given, is not
    finite.
    """
    if grad_norm is not None and not math.isfinite(grad_norm):
        return
    shrink, rate, new_share, new_square_share, correction, epsilon = scalars
    mean += new_share * (gradient - mean)
    square *= 1 - new_square_share
    square += (new_square_share * gradient) * gradient  # in this order the square of 1e20 fits a float32
    data[:decayed] *= shrink
    data -= rate * mean / (square**0.5 * correction + epsilon)
    if compute_weights is not None:
        compute_weights[...] = data


ADAMW_SCALARS = 6


def adamw_scalars(
    steps: int, learning_rate: float, *, betas: tuple[float, float], weight_decay: float, epsilon: float
) -> tuple[float, ...]:
    """Return what changes from step to step for step number `steps`, counted from 1.

    A decaying weight is multiplied by the first, 1 less its decay. The second is the learning rate with the first
    average's correction in it, the fifth corrects the root of the second: both averages began at 0, and these undo that
    pull. The third and fourth are the shares of a new gradient in them.
    """
    beta_1, beta_2 = betas
    rate, correction = learning_rate / (1 - beta_1**steps), (1 - beta_2**steps) ** -0.5
    return 1 - learning_rate * weight_decay, rate, 1 - beta_1, 1 - beta_2, correction, epsilon


class AdamW(Optimizer):
    """Step each parameter by its mean gradient over the root of its mean squared gradient; decay matrices towards 0.

    The decay acts on the weights themselves, not through the gradient, and leaves gains and biases alone. Raises
    ConfigError for a setting out of range.
    """

    def __init__(
        self,
        parameters: Movable,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(parameters)
        expect("AdamW: beta 1", betas[0], minimum=0, below=1)
        expect("AdamW: beta 2", betas[1], minimum=0, below=1)
        expect("AdamW: epsilon", epsilon, minimum=0)
        expect("AdamW: weight_decay", weight_decay, minimum=0)
        self.betas = betas
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.steps = 0
        self.mean = parameters.backend.xp.zeros_like(parameters.data)
        self.square = parameters.backend.xp.zeros_like(parameters.data)
        self._scalars = StepScalars(parameters, 1, ADAMW_SCALARS)

    def prepare(self, learning_rate: float, position: int = 0) -> None:
        """Work out the next step's decay and corrections; there are no schedules that `position` would be in."""
        self.steps += 1
        betas, decay, epsilon = self.betas, self.weight_decay, self.epsilon
        self._scalars.set([adamw_scalars(self.steps, learning_rate, betas=betas, weight_decay=decay, epsilon=epsilon)])

    def update(self, grad_norm: Any = None) -> None:
        """Move every parameter once."""
        parameters = self.parameters
        parameters.kernel_of(adamw_update)(
            parameters.data,
            parameters.gradient,
            self.mean,
            self.square,
            self._scalars[0],
            decayed=parameters.matrices.stop,
            compute_weights=parameters.compute_weights,
            grad_norm=grad_norm,
        )
        if self.steps % TRACES_LAST == 0:
            drop_traces((self.mean, self.square))

    def state(self) -> dict[str, np.ndarray]:
        """Return the two averages and the number of steps taken."""
        return state_of(self._averages(), self.steps)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`. Raises CheckpointError where it does not fit."""
        self.steps = load_state(self._averages(), state, self.parameters.backend)

    def _averages(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "square": self.square}
