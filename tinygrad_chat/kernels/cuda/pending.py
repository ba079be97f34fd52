"""Gradients of weights that are products, computed directly in the buffers that accumulate them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tinygrad_chat.autograd import PendingGradient
from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.matmul import gemm
from tinygrad_chat.kernels.cuda.slices import joined, runs

Destination = tuple[slice, Any, bool]
"""Which rows of a product are computed in which buffer, and whether they are added to what it holds."""


class WeightGradients:
    """left (M, K) @ right (K, N), not yet computed: its rows are the gradients of several weights, one after another.

    They wait for each other, since those whose buffers are neighbours, as in `Parameters`, are one product.
    """

    def __init__(self, left: Any, right: Any, *, tf32: bool) -> None:
        self._left, self._right, self._tf32 = left, right, tf32
        self._waiting: list[Destination] = []

    def of(self, heights: Sequence[int]) -> list[PendingProduct]:
        """Return the gradients of weights with so many rows each."""
        ends = accumulate(heights)
        return [PendingProduct(self, slice(end - rows, end)) for end, rows in zip(ends, heights, strict=True)]

    def shape_of(self, rows: slice) -> tuple[int, int]:
        """Return the shape of the gradient in those rows."""
        return rows.stop - rows.start, self._right.shape[1]

    def wait(self, rows: slice, buffer: Any, *, add: bool) -> None:
        """Compute those rows in a float32 buffer when `finish` is called."""
        self._waiting.append((rows, buffer, add))

    def array(self, rows: slice) -> Any:
        """Return those rows as a new array in float32."""
        product = array_module(self._left).empty(self.shape_of(rows), np.float32)
        return gemm(self._left[rows], self._right, product, tf32=self._tf32)

    def finish(self) -> None:
        """Compute what has waited."""
        waiting, self._waiting = self._waiting, []
        for _, (rows, buffer, add) in runs(waiting, _joined_destinations):
            gemm(self._left[rows], self._right, buffer, tf32=self._tf32, add=add)


def _joined_destinations(waiting: Sequence[Destination]) -> Destination | None:
    parts, buffers, adds = zip(*waiting, strict=True)
    if len(set(adds)) > 1 or any(one.stop != following.start for one, following in pairwise(parts)):
        return None
    buffer = joined(buffers, 0)
    return None if buffer is None else (slice(parts[0].start, parts[-1].stop), buffer, adds[0])


class PendingTerm(PendingGradient):
    """A gradient whose kernel adds it to others in the same pass: `compute` takes their sum, or None."""

    def __init__(self, compute: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
        self._compute, self.shape = compute, shape

    def add_to(self, buffer: Any) -> None:
        """Add the gradient to a buffer."""
        buffer += self.array()

    def array(self) -> Any:
        """Return the gradient alone."""
        return self._compute(None)

    def plus(self, total: Any, *, own: bool) -> Any:
        """Return a new array: the gradient and `total`."""
        return self._compute(total)


class PendingProduct(PendingGradient):
    """The gradient of one of several weights."""

    def __init__(self, whole: WeightGradients, rows: slice) -> None:
        self._whole, self._rows = whole, rows
        self.shape = whole.shape_of(rows)

    def add_to(self, buffer: Any) -> None:
        """Add the product to a float32 buffer when `finish` is called."""
        self._whole.wait(self._rows, buffer, add=True)

    def write_to(self, buffer: Any) -> None:
        """Write the product to a float32 buffer, which is not read, when `finish` is called."""
        self._whole.wait(self._rows, buffer, add=False)

    def finish(self) -> None:
        """Compute it, and with it the gradients of the other weights as far as they have waited."""
        self._whole.finish()

    def array(self) -> Any:
        """Return the product in float32."""
        return self._whole.array(self._rows)
