"""NumPy as a back end."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend.base import Backend


class NumpyBackend(Backend):
    """Arrays in host memory, processed by the CPU."""

    name = "numpy"
    xp = np
    array_type = np.ndarray
    device = "cpu"
    kernel_sets = ("numba", "numpy")

    def to_host(self, array: Any) -> np.ndarray:
        """Return the array itself."""
        return array

    def synchronize(self) -> None:
        """Return at once: NumPy's functions finish their work before they return."""
