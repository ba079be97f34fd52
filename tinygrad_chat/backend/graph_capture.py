"""Work that a device records once and then repeats by a single call: a CUDA graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

EAGER_STEPS = 2
"""Of one kind before a step is recorded: kernels are compiled, and what comes once is not worth it."""


class Recorder(ABC):
    """Records work, on a stream and in memory of its own.

    A replay reads and writes the addresses that the work did. The numbers that the host passed to it, the factors of
    products among them, are those of the recording: what is to change must be in the device's memory.
    """

    @abstractmethod
    def apart(self) -> AbstractContextManager[None]:
        """Submit work to the recorder's stream, with new arrays in its memory, within this context.

        The device begins with it after all that was submitted before, and does all that is submitted later after it.
        Everything that a recorder does takes place within it.
        """

    @abstractmethod
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what submits `work` again. Recording computes nothing.

        Raises whatever `work` does, and the array library's errors where it asks for what cannot be recorded: that the
        host waits, or copies to the device.
        """
