"""What one of several ranks that compute together asks of the others."""

from __future__ import annotations

from typing import Any, Protocol


class Communicator(Protocol):
    """The place of one rank among `size` of them, which all call the same methods in the same order."""

    rank: int
    size: int

    def all_reduce(self, array: Any) -> None:
        """Replace `array`, of the same shape on every rank, by the sum of all of them, added in the order of ranks.

        That order is fixed, so the sum is the same to the last bit from run to run.
        """
        ...
