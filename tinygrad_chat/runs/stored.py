"""Arrays that stay in their file until they are used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StoredArray:
    """An array of floats whose shape is known and whose data is still in a file: `np.asarray` reads it.

    Nothing is cached: every read converts the data again. `kind` is the dtype in the file, by the file's name for it.

    >>> stored = StoredArray((2, 3), lambda: np.arange(6.0).reshape(2, 3))
    >>> np.asarray(stored[1:].T).tolist(), stored.map((6,), np.ravel).shape
    ([[3.0], [4.0], [5.0]], (6,))
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    kind: str = "F32"

    @property
    def ndim(self) -> int:
        """The number of its dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def map(self, shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray]) -> StoredArray:
        """Return the lazy result of `change`, an array of that shape."""
        return StoredArray(shape, lambda: change(self.read()), self.kind)

    @property
    def T(self) -> StoredArray:  # noqa: N802 - NumPy's name
        """The array transposed."""
        return self.map(self.shape[::-1], np.transpose)

    def __getitem__(self, rows: slice) -> StoredArray:
        """Some of its rows."""
        count = len(range(*rows.indices(self.shape[0])))
        return self.map((count, *self.shape[1:]), lambda array: array[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.read()
        return np.array(array, dtype) if copy else np.asarray(array, dtype)
