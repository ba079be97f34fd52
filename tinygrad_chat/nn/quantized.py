"""Weights quantised to float16 or int8, for inference: less memory than float32. They have no gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from tinygrad_chat.autograd import find_kernel, recording
from tinygrad_chat.errors import UsageError
from tinygrad_chat.nn.layers import Embedding, Linear
from tinygrad_chat.ops.matmul import check_linear
from tinygrad_chat.ops.shape import rows_of
from tinygrad_chat.tensor import Tensor

COLUMNS, LINES = 32, 4
"""Kernels read this many columns and rows of a matrix at a time, so it is zero-padded to multiples of them."""

LARGEST_INT8 = 127
SLICE = 1 << 18  # numbers converted at a time


@dataclass(frozen=True)
class QuantizedWeight:
    """A matrix (D, C): `numbers` in float16 or int8, times the scale of their row, which is 1 for float16.

    To the layers around it, it is a float32 matrix.

    >>> weight = QuantizedWeight.of(np.array([[0.5, -1.0, 0.25]], np.float32), "int8")
    >>> weight.rows(np.array([0])).round(3)
    array([[ 0.504, -1.   ,  0.252]], dtype=float32)
    """

    numbers: np.ndarray
    scales: np.ndarray
    shape: tuple[int, int]
    dtype = np.dtype(np.float32)

    @classmethod
    def of(cls, matrix: np.ndarray, kind: str) -> Self:
        """Quantise a matrix (D, C) to "float16" or "int8", each number rounded to the nearest."""
        matrix = np.asarray(matrix)  # reads it now, if it was still in its file
        (D, C), step = matrix.shape, max(1, SLICE // max(1, matrix.shape[1]))
        numbers = np.zeros((-(-D // LINES) * LINES, -(-C // COLUMNS) * COLUMNS), kind)
        scales = np.ones(len(numbers), np.float32)
        for start in range(0, D, step):
            part = np.asarray(matrix[start : start + step], np.float32)
            stop = start + len(part)
            with np.errstate(all="ignore"):  # NaN and infinities show when a token is sampled
                if kind == "int8":
                    largest = np.abs(part).max(axis=1, initial=0)
                    scales[start:stop] = np.where(largest == 0, 1, largest / np.float32(LARGEST_INT8))
                    part = np.rint(part / scales[start:stop, None])
                numbers[start:stop, :C] = part
        return cls(numbers, scales, (D, C))

    @property
    def nbytes(self) -> int:
        """The memory that it takes, in bytes."""
        return self.numbers.nbytes + self.scales.nbytes

    @property
    def ndim(self) -> int:
        """2: it is a matrix."""
        return 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> QuantizedWeight:
        """Return the matrix of the first `rows.stop` rows."""
        return replace(self, shape=(rows.stop, self.shape[1]))

    def rows(self, index: Any) -> np.ndarray:
        """Return the rows (..., C) at `index`, in float32."""
        return self.numbers[index][..., : self.shape[1]] * self.scales[index][..., None]


def quantized_product(x: np.ndarray, weight: QuantizedWeight) -> np.ndarray:
    """x (..., C) times a quantised weight (D, C) transposed -> (..., D): the reference for the kernels."""
    check_linear(x, weight, None)
    out = rows_of(x) @ weight.rows(slice(len(weight))).T
    return out.reshape(*x.shape[:-1], len(weight))


def _expect_no_gradient() -> None:
    if recording():
        raise UsageError("quantised weights have no gradient: load the model with weights='float32'")


class QuantizedLinear(Linear):
    """A linear layer with a quantised weight."""

    weight: QuantizedWeight

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer. Raises UsageError while the graph is recorded."""
        _expect_no_gradient()
        out = find_kernel(quantized_product, quantized_product, x.data)(x.data, self.weight)
        return Tensor(out if self.bias is None else out + self.bias.data)


class QuantizedLinears:
    """Quantised linear layers with the same input x (..., C), computed as one product: a call yields each's output.

    Their weights become parts of one matrix, so that a decoded token costs one call instead of one per layer.
    """

    def __init__(self, layers: Sequence[QuantizedLinear]) -> None:
        self._layers = layers
        weights = [layer.weight for layer in layers]
        numbers, scales = (np.concatenate(each) for each in zip(*((w.numbers, w.scales) for w in weights), strict=True))
        self._weight = QuantizedWeight(numbers, scales, (len(numbers), weights[0].shape[1]))
        ends = np.cumsum([len(weight.numbers) for weight in weights]).tolist()
        self._starts = [0, *ends[:-1]]
        for layer, start, end in zip(layers, self._starts, ends, strict=True):
            layer.weight = replace(layer.weight, numbers=numbers[start:end], scales=scales[start:end])

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        """Apply the layers. Raises UsageError while the graph is recorded."""
        _expect_no_gradient()
        out = find_kernel(quantized_product, quantized_product, x.data)(x.data, self._weight)
        for layer, start in zip(self._layers, self._starts, strict=True):
            own = out[..., start : start + len(layer.weight)]
            yield Tensor(own if layer.bias is None else own + layer.bias.data)

    @classmethod
    def of(cls, *layers: Linear | None) -> QuantizedLinears | None:
        """Return the layers as one if all of them are quantised, else None."""
        quantized = [layer for layer in layers if isinstance(layer, QuantizedLinear)]
        return cls(quantized) if len(quantized) == len(layers) else None


class QuantizedEmbedding(Embedding):
    """An embedding with a quantised table."""

    weight: QuantizedWeight

    def __call__(self, tokens: Any) -> Tensor:
        """Look up the tokens. Raises UsageError while the graph is recorded."""
        _expect_no_gradient()
        return Tensor(self.weight.rows(tokens))
