"""Work that is captured as a CUDA graph once, and then replayed by a single call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager


class GraphCapture(ABC):
    """Captures work as graphs, on a stream and in a memory pool of its own.

    A replay reads and writes the addresses that the work did. The numbers that the host passed to it, the factors of
    products among them, are those of the capture: what is to change must be in the device's memory.
    """

    @abstractmethod
    def on_its_stream(self) -> AbstractContextManager[None]:
        """Submit work to the capture's stream, with new arrays from its pool, within this context.

        The device begins with it after all that was submitted before, and does all that is submitted later after it.
        Warm-up, capture and replay all take place within it.
        """

    @abstractmethod
    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return the replay of `work`, which launches its graph. Capturing computes nothing.

        Raises whatever `work` does, and the array library's errors where it asks for what cannot be captured: that the
        host waits, or copies to the device.
        """
