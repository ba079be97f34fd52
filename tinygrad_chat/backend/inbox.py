"""Numbers that the host sends to a device again and again."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend.base import Backend

BUFFERS = 2  # of an inbox


class Inbox:
    """A device array, at an address that stays, which the host overwrites without waiting for the device.

    Copies are made from two buffers in turn, so that the host can fill one while the device still reads the other.
    """

    def __init__(self, backend: Backend, shape: tuple[int, ...], dtype: Any) -> None:
        self.array = backend.xp.zeros(shape, dtype)
        self._backend = backend
        self._buffers = [backend.sending_buffer(shape, dtype) for _ in range(BUFFERS)]
        self._sent: list[Any] = [None] * BUFFERS
        self._turn = 0

    def write(self, values: Any) -> None:
        """Overwrite the array with `values`, of its shape, for all work that is submitted from now on."""
        turn, self._turn = self._turn, (self._turn + 1) % BUFFERS
        if self._sent[turn] is not None:
            self._backend.wait_for(self._sent[turn])
        self._buffers[turn][...] = np.asarray(values)
        self._backend.send(self._buffers[turn], self.array)
        self._sent[turn] = self._backend.mark()
