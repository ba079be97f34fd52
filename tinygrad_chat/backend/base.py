"""What every back end offers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from tinygrad_chat.backend.graph_capture import GraphCapture
from tinygrad_chat.backend.host_memory import available_memory
from tinygrad_chat.backend.whole_numbers import narrowed


class Backend(ABC):
    """Where arrays live and what computes on them. It has no settings: a `Compute` says how a model uses it.

    The defaults here are those of the host.
    """

    name: str
    xp: Any
    """The array library's namespace: numpy or cupy."""
    array_type: type
    """The class of its arrays."""
    device: str
    """The name of the device, for people."""
    kernel_sets: tuple[str, ...]
    """The folders of `kernels/` that suit its arrays, fastest first."""
    dtypes: tuple[str, ...] = ("float32",)
    """The precisions that it supports, fastest first: float32, tf32 (float32, but the factors of matrix products are
    rounded to 10 bits) and bfloat16."""

    @abstractmethod
    def to_host(self, array: Any) -> np.ndarray:
        """Return one of its arrays as a NumPy array, copied only if it is not in host memory."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work submitted so far is done."""

    def whole_numbers(self, x: Any) -> Any:
        """Return tokens or targets as one of its arrays; on a device, of at most 32 bits."""
        if self.xp is np:
            return np.asarray(x)
        return self.xp.asarray(narrowed(x if isinstance(x, self.array_type) else np.asarray(x)))

    def memory_held(self) -> int | None:
        """Return the bytes held on the device, or None on the host."""
        return None

    def memory_free(self) -> int:
        """Return the bytes available for arrays."""
        return available_memory()

    def visible_devices(self) -> list[str]:
        """Return the names by which a separate process can be given one of the devices; none on the host."""
        return []

    def ran_out_of_memory(self, error: BaseException) -> bool:
        """Return whether an error means that there was not enough memory for an array or a thread."""
        return isinstance(error, MemoryError) or str(error) == "can't start new thread"

    def mark(self) -> Any:
        """Mark a point in time in the device's work."""
        return time.perf_counter()

    def seconds_between(self, begin: Any, end: Any) -> float:
        """Return the seconds from one mark to another."""
        return end - begin

    def wait_for(self, mark: Any) -> None:
        """Wait until the device has passed a mark, or longer."""
        self.synchronize()

    def sending_buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return host memory from which `send` need not wait for the device."""
        return np.empty(shape, dtype)

    def send(self, buffer: np.ndarray, array: Any) -> None:
        """Overwrite a contiguous array with a buffer of its shape and type, which must not change before the copy has
        been made."""
        array[...] = buffer

    def graph_capture(self) -> GraphCapture | None:
        """Return what captures CUDA graphs, with a stream and a memory pool of its own, or None, as on the host, where
        there are no such graphs."""
        return None

    def annotate(self, name: str) -> AbstractContextManager[None]:
        """Label a range of the device's work for its vendor's profilers."""
        return nullcontext()
