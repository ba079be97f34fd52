"""Layers: an op together with the parameters that it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import has_kernel
from tinygrad_chat.nn.module import Module
from tinygrad_chat.tensor import Tensor

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "gelu": ops.gelu,
    "squared_relu": ops.squared_relu,
    "swiglu": ops.swiglu,
}

INITIAL_STD = 0.02  # GPT-2's, for widths of this order (Radford et al., 2019)


def _normal(random: np.random.Generator, shape: tuple[int, ...], std: float) -> Tensor:
    return Tensor((std * random.standard_normal(shape)).astype(np.float32))


class Linear(Module):
    """x (..., inputs) -> (..., outputs): x times `weight` (outputs, inputs) transposed, plus `bias` if there is one.

    The weight is drawn from a normal distribution with mean 0 and standard deviation `std`.
    """

    def __init__(
        self, inputs: int, outputs: int, *, random: np.random.Generator, bias: bool = True, std: float = INITIAL_STD
    ) -> None:
        self.weight = _normal(random, (outputs, inputs), std)
        self.bias = Tensor(np.zeros(outputs, np.float32)) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return ops.linear(x, self.weight, self.bias)


class LoRALinear(Linear):
    """A frozen linear layer plus a learned product of low rank, times `scale`.

    x (..., inputs) -> (..., outputs). `weight` and `bias` are bare arrays, hence constants; `lora_a`
    (rank, inputs) and `lora_b` (outputs, rank) are Tensors (Hu et al., arXiv:2106.09685).
    """

    lora_a: Tensor
    lora_b: Tensor
    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        learned = ops.linear(ops.linear(x, self.lora_a), self.lora_b)
        return super().__call__(x) + learned * self.scale


def apply_to_one_input(x: Tensor, *layers: Linear) -> Sequence[Tensor]:
    """Return what each of several layers gives for x (..., inputs): where a kernel takes their weights as one, as on a
    GPU, by one op."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    plain = all(type(layer) is Linear for layer in layers) and len(biases) in (0, len(layers))
    if plain and has_kernel(ops.linears, x.data):
        return list(ops.linears(x, *(layer.weight for layer in layers), *biases))
    return [layer(x) for layer in layers]


class Embedding(Module):
    """Integer tokens (...) -> rows (..., width) of `weight` (count, width), drawn with standard deviation `std`."""

    def __init__(self, count: int, width: int, *, random: np.random.Generator, std: float = INITIAL_STD) -> None:
        self.weight = _normal(random, (count, width), std)

    def __call__(self, tokens: Any) -> Tensor:
        """Look up the tokens."""
        return ops.embedding(self.weight, tokens)


class Norm(Module):
    """Normalises the rows of x (..., width); this base class leaves them as they are."""

    epsilon: float = 0.0
    """Added to a row's mean square."""

    @property
    def vectors(self) -> tuple[Tensor | None, ...]:
        """The op's parameters after x."""
        return ()

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the rows of x."""
        return x


class LayerNorm(Norm):
    """Brings rows to mean 0 and variance 1, then multiplies by `gain` and adds `bias`, if there is one."""

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
        return ops.layernorm(x, self.gain, self.bias, epsilon=self.epsilon)


class RMSNorm(Norm):
    """Brings rows to root mean square 1, then multiplies by `gain`, if there is one."""

    def __init__(self, width: int, *, gain: bool = True, epsilon: float = 1e-5) -> None:
        self.gain = Tensor(np.ones(width, np.float32)) if gain else None
        self.epsilon = epsilon

    @property
    def vectors(self) -> tuple[Tensor | None, ...]:
        """The gain."""
        return (self.gain,)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the rows of x."""
        return ops.rmsnorm(x, self.gain, epsilon=self.epsilon)


def dropper(rate: float, random: np.random.Generator | None, offset: int = 0) -> Callable[[Tensor], Tensor]:
    """Return the dropout for one forward pass: the identity without a random stream, as in evaluation.

    `offset` is the index of the pass's first row in the whole batch.
    """
    if random is None or rate == 0:
        return lambda x: x
    return lambda x: ops.dropout(x, rate=rate, seed=random.integers(2**63), offset=offset * (x.size // x.shape[0]))
