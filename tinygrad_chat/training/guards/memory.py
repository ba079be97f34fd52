"""A guard against memory leaks: whether the memory that the process holds keeps growing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygrad_chat.errors import MemoryGrowthError
from tinygrad_chat.machine.memory import KINDS

UNREMARKABLE = 64 << 20  # bytes of growth that are never an error: Python and NumPy load some things late
FIRST = 2  # the evaluation that memory is compared with: before it memory still fills, as the first precedes any step


class MemoryGuard:
    """Compares the memory at each evaluation with that at the second one; `limit` is the fraction it may grow by."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._seen = 0
        self._start: dict[str, int] = {}

    def check(self, held: Mapping[str, Any]) -> None:
        """Raise MemoryGrowthError if a kind of memory in `held`, in bytes, has grown beyond the limit."""
        self._seen += 1
        if self._seen <= FIRST:
            self._start = {kind: held[kind] for kind in KINDS if kind in held}
            return
        for kind in self._start:
            size = held[kind]
            growth = size - self._start[kind]
            if growth > max(UNREMARKABLE, self._limit * self._start[kind]):
                raise MemoryGrowthError(
                    f"{kind.replace('_', ' ')} has grown from {self._start[kind] >> 20} to {size >> 20} MiB, more than "
                    f"--max-memory-growth {self._limit:g} allows; the checkpoint is saved: continue with --resume, "
                    "and please report it"
                )
