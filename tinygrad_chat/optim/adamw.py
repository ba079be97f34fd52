"""AdamW (Loshchilov & Hutter, arXiv:1711.05101)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.optim.optimizer import Movable, Optimizer, StepScalars
from tinygrad_chat.optim.state import FLUSH_EVERY, flush_negligible, load_state, state_of
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
    grad_scale: Any = None,
) -> None:
    """Update flat arrays in place: the two running averages of the gradient, then the weights.

    `scalars` are the six of `adamw_scalars`. Only the first `decayed` weights decay. `compute_weights`, a copy of the
    weights in another dtype, are updated too if given. If `grad_scale` is given, the gradient counts times it, and
    nothing changes if it is not finite.
    """
    if grad_scale is not None:
        if not math.isfinite(grad_scale):
            return
        gradient = grad_scale * gradient
    shrink, rate, new_share, new_square_share, correction, epsilon = scalars
    mean += new_share * (gradient - mean)
    square *= 1 - new_square_share
    square += (new_square_share * gradient) * gradient  # in this order the square of 1e20 does not overflow float32
    data[:decayed] *= shrink
    data -= rate * mean / (square**0.5 * correction + epsilon)
    if compute_weights is not None:
        compute_weights[...] = data


ADAMW_SCALARS = 6


def adamw_scalars(
    steps: int, learning_rate: float, *, betas: tuple[float, float], weight_decay: float, epsilon: float
) -> tuple[float, ...]:
    """Return the scalars of step `steps`, counted from 1, which change from step to step.

    In order: the factor of a decaying weight, 1 - lr * weight_decay; the learning rate with the bias correction of the
    mean; 1 - beta_1 and 1 - beta_2; the bias correction of the root of the mean square; epsilon. Bias correction
    compensates for both averages starting at 0.
    """
    beta_1, beta_2 = betas
    rate, correction = learning_rate / (1 - beta_1**steps), (1 - beta_2**steps) ** -0.5
    return 1 - learning_rate * weight_decay, rate, 1 - beta_1, 1 - beta_2, correction, epsilon


class AdamW(Optimizer):
    """Step each parameter by its mean gradient over the root of its mean squared gradient, with decoupled weight decay.

    The decay acts on the weights themselves, not through the gradient, and only on matrices, not on gains and biases.
    Raises ConfigError for a setting out of range.
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
        """Compute the next step's decay and bias corrections; `position` is unused, as there are no schedules."""
        self.steps += 1
        betas, decay, epsilon = self.betas, self.weight_decay, self.epsilon
        self._scalars.set([adamw_scalars(self.steps, learning_rate, betas=betas, weight_decay=decay, epsilon=epsilon)])

    def update(self, grad_scale: Any = None) -> None:
        """Update every parameter once."""
        parameters = self.parameters
        parameters.kernel_of(adamw_update)(
            parameters.data,
            parameters.gradient,
            self.mean,
            self.square,
            self._scalars[0],
            decayed=parameters.matrices.stop,
            compute_weights=parameters.compute_weights,
            grad_scale=grad_scale,
        )
        if self.steps % FLUSH_EVERY == 0:
            flush_negligible((self.mean, self.square))

    def state(self) -> dict[str, np.ndarray]:
        """Return the two averages and the number of steps taken."""
        return state_of(self._averages(), self.steps)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Load `state`. Raises CheckpointError if it does not fit."""
        self.steps = load_state(self._averages(), state)

    def _averages(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "square": self.square}
