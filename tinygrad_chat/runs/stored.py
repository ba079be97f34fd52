"""Arrays that stay in their file until they are used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StoredArray:
    """An array of floats whose shape is known and whose numbers are still in a file: `np.asarray` of it reads them.

    Nothing of it is kept: who reads it twice has it converted twice.

    >>> half = StoredArray((2,), lambda: np.array([1, 2], np.float16))
    >>> np.asarray(half), half.map((2, 1), lambda array: array[:, None]).shape
    (array([1., 2.], dtype=float16), (2, 1))
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def ndim(self) -> int:
        """The number of its dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def map(self, shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray]) -> StoredArray:
        """Return what `change` will make of it, an array of that shape."""
        return StoredArray(shape, lambda: change(self.read()))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.read()
        return np.array(array, dtype) if copy else np.asarray(array, dtype)
