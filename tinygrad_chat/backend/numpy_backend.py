"""NumPy as a back end."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend.base import Backend


class NumpyBackend(Backend):
    """Arrays in host memory, computed on by the processor."""

    name = "numpy"
    xp = np
    array_type = np.ndarray
    device = "cpu"
    kernel_sets = ("numba", "numpy")

    def to_host(self, array: Any) -> np.ndarray:
        """Return the array itself."""
        return array

    def synchronize(self) -> None:
        """Return at once: work is done when its function returns."""
