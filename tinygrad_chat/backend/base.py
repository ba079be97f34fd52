"""What every back end offers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from tinygrad_chat.backend.host_memory import available_memory


class Backend(ABC):
    """Where arrays live and who computes on them. It has no settings: how a model uses it is a `Compute`.

    What a class does not say otherwise is as on the host.
    """

    name: str
    xp: Any
    """The array library's namespace: numpy or cupy."""
    array_type: type
    """The class of its arrays."""
    device: str
    """What it computes on, for people."""
    kernel_sets: tuple[str, ...]
    """The folders of `kernels/` that suit its arrays, the fastest first."""
    dtypes: tuple[str, ...] = ("float32",)
    """The precisions that it can compute in, the fastest first: float32, tf32 (float32 but for products, whose factors
    are rounded to 10 bits) and bfloat16."""

    @abstractmethod
    def to_host(self, array: Any) -> np.ndarray:
        """Return an array of it as a NumPy array, copied only where it lies elsewhere."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work submitted so far is done."""

    def memory_held(self) -> int | None:
        """Return the bytes held on the device; None: it is the host."""
        return None

    def memory_free(self) -> int:
        """Return the bytes that are left for arrays."""
        return available_memory()

    def visible_devices(self) -> list[str]:
        """Return the devices among which a process of its own may be given one, by what it is told; none: the host."""
        return []

    def ran_out_of_memory(self, error: BaseException) -> bool:
        """Return whether an error says that there was no memory for an array, or for a thread."""
        return isinstance(error, MemoryError) or str(error) == "can't start new thread"

    def mark(self) -> Any:
        """Mark a moment in the work of the device."""
        return time.perf_counter()

    def seconds_between(self, begin: Any, end: Any) -> float:
        """Return the seconds from one mark to another."""
        return end - begin

    def annotate(self, name: str) -> AbstractContextManager[None]:
        """Name a stretch of the device's work for its maker's profilers."""
        return nullcontext()
