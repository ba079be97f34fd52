"""Layers: an op together with the parameters that it needs, and how those begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.nn.module import Module
from tinygrad_chat.tensor import Tensor

ACTIVATIONS = {"gelu": ops.gelu, "squared_relu": ops.squared_relu}

INITIAL_STD = 0.02  # GPT-2's, for widths of this order (Radford et al., 2019)


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""(random stream, shape) -> the numbers that a weight begins with"""


def normal(std: float) -> Draw:
    """Return a draw around 0 with that standard deviation."""
    return lambda random, shape: std * random.standard_normal(shape)


def uniform(low: float, high: float) -> Draw:
    """Return a draw between two bounds."""
    return lambda random, shape: random.uniform(low, high, shape)


def zeros(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw nothing: all 0."""
    return np.zeros(shape)


def _drawn(draw: Draw, random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return Tensor(draw(random, shape).astype(np.float32))


INITIAL = normal(INITIAL_STD)


class Linear(Module):
    """x (..., inputs) -> (..., outputs): x times `weight` (outputs, inputs) transposed, plus `bias` if there is one."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        random: np.random.Generator,
        bias: bool = True,
        draw: Draw = INITIAL,
    ) -> None:
        self.weight = _drawn(draw, random, (outputs, inputs))
        self.bias = Tensor(np.zeros(outputs, np.float32)) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return ops.linear(x, self.weight, self.bias)


class Embedding(Module):
    """Integer tokens (...) -> rows (..., width) of `weight` (count, width)."""

    def __init__(self, count: int, width: int, *, random: np.random.Generator, draw: Draw = INITIAL) -> None:
        self.weight = _drawn(draw, random, (count, width))

    def __call__(self, tokens: Any) -> Tensor:
        """Look the tokens up."""
        return ops.embedding(self.weight, tokens)


class Norm(Module):
    """Brings the rows of x (..., width) to a common size; this one leaves them as they are.

    `vectors` is what the op takes beside x, `epsilon` what it adds to the mean square.
    """

    vectors: tuple[Tensor | None, ...] = ()
    epsilon: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the rows of x."""
        return x


class LayerNorm(Norm):
    """Rows to mean 0 and variance 1, then times `gain` plus `bias`."""

    def __init__(self, width: int, *, bias: bool = True, epsilon: float = 1e-5) -> None:
        self.gain = Tensor(np.ones(width, np.float32))
        self.bias = Tensor(np.zeros(width, np.float32)) if bias else None
        self.epsilon = epsilon

    @property
    def vectors(self) -> tuple[Tensor | None, ...]:
        """Gain and bias."""
        return self.gain, self.bias

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the rows of x."""
        return ops.layernorm(x, *self.vectors, epsilon=self.epsilon)


class RMSNorm(Norm):
    """Rows to root mean square 1, then times `gain` if there is one."""

    def __init__(self, width: int, *, gain: bool = True, epsilon: float = 1e-5) -> None:
        self.gain = Tensor(np.ones(width, np.float32)) if gain else None
        self.epsilon = epsilon

    @property
    def vectors(self) -> tuple[Tensor | None, ...]:
        """The gain."""
        return (self.gain,)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the rows of x."""
        return ops.rmsnorm(x, *self.vectors, epsilon=self.epsilon)


def make_norm(kind: str, width: int, *, gain: bool = True, bias: bool = False, epsilon: float = 1e-5) -> Norm:
    """Return the normalisation layer called `kind`: layernorm, rmsnorm or none."""
    if kind == "none":
        return Norm()
    if kind == "layernorm":
        return LayerNorm(width, bias=bias, epsilon=epsilon)
    return RMSNorm(width, gain=gain, epsilon=epsilon)


def dropper(rate: float, random: np.random.Generator | None, offset: int = 0) -> Callable[[Tensor], Tensor]:
    """Return the dropout to apply throughout one forward pass: none without a random stream, as in evaluation.

    `offset` is the index of the pass's first row in the whole batch.
    """
    if random is None or rate == 0:
        return lambda x: x
    return lambda x: ops.dropout(x, rate=rate, seed=int(random.integers(2**63)), offset=offset * (x.size // x.shape[0]))
