"""Numbers that the host sends to a device again and again."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np

from tinygrad_chat.backend.base import Backend

BUFFERS = 2  # of a packet
ALIGNMENT = 16  # bytes: the widest load of a kernel


class Slot:
    """A device array, at an address that stays, and the numbers with which the next packet overwrites it."""

    def __init__(self, array: Any, numbers: np.ndarray) -> None:
        self.array = array
        self._numbers = numbers

    def write(self, values: Any) -> None:
        """Put `values`, of the array's shape, into the next packet and all later ones."""
        self._numbers[...] = np.asarray(values)


class Packet:
    """Device arrays of given shapes and types, `slots`, which the host overwrites by one copy, without waiting for the
    device. They are undefined until the first one.

    Copies are made from two buffers in turn, so that the host can fill one while the device still reads the other.
    """

    def __init__(self, backend: Backend, *kinds: tuple[tuple[int, ...], Any]) -> None:
        *starts, total = accumulate((-(-_size(*kind) // ALIGNMENT) * ALIGNMENT for kind in kinds), initial=0)
        self._backend = backend
        self._array, self._numbers = backend.xp.empty(total, np.uint8), np.zeros(total, np.uint8)
        self._buffers = [backend.sending_buffer((total,), np.uint8) for _ in range(BUFFERS)]
        self._sent: list[Any] = [None] * BUFFERS
        self._turn = 0
        self.slots = [
            Slot(_part(self._array, start, *kind), _part(self._numbers, start, *kind))
            for start, kind in zip(starts, kinds, strict=True)
        ]

    def send(self) -> None:
        """Overwrite the arrays, for all work that is submitted from now on."""
        turn, self._turn = self._turn, (self._turn + 1) % BUFFERS
        if self._sent[turn] is not None:
            self._backend.wait_for(self._sent[turn])
        self._buffers[turn][...] = self._numbers
        self._backend.send(self._buffers[turn], self._array)
        self._sent[turn] = self._backend.mark()

    def finish(self) -> None:
        """Wait until the device has what was sent, so that the buffers may be freed."""
        for mark in self._sent:
            if mark is not None:
                self._backend.wait_for(mark)


class Inbox:
    """A packet of one array, which is sent whenever it is written."""

    def __init__(self, backend: Backend, shape: tuple[int, ...], dtype: Any) -> None:
        self._packet = Packet(backend, (shape, dtype))
        self._slot = self._packet.slots[0]
        self.array = self._slot.array

    def write(self, values: Any) -> None:
        """Overwrite the array with `values`, of its shape, for all work that is submitted from now on."""
        self._slot.write(values)
        self._packet.send()


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _part(memory: Any, start: int, shape: tuple[int, ...], dtype: Any) -> Any:
    return memory[start : start + _size(shape, dtype)].view(dtype).reshape(shape)
