"""What one of several ranks that compute together asks of the others: the collective operations of MPI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

FAREWELL = None
"""What rank 0 broadcasts when there is nothing left to do."""


class Communicator(Protocol):
    """The place of one rank among `size` of them, which all call the same methods in the same order.

    Arrays are in one piece. `shares`, where they are asked for, are one slice for each rank, in order, which together
    cover a flat array. With the same number of ranks every sum is the same to the last bit from run to run.
    """

    rank: int
    size: int
    overlaps: bool
    """Whether communication goes on while this rank computes, at little cost: so on a network, but not where the
    ranks' own cores move the data."""

    def all_reduce(self, array: Any) -> None:
        """Replace `array`, of the same shape on every rank, by the sum of all of them."""
        ...

    def reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> None:
        """Write this rank's share of the sum of all ranks' flat arrays into `into`, an array as long as that share.

        `array` may be overwritten.
        """
        ...

    def start_reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> Callable[[], None]:
        """Begin a `reduce_scatter`, and return a function that waits for its end; where that is impossible, do it now.

        Until the end neither array may be touched. What is begun later ends later.
        """
        ...

    def all_gather(self, array: Any, shares: Sequence[slice]) -> None:
        """Copy each rank's share of the flat `array` to all ranks."""
        ...

    def broadcast(self, array: Any) -> None:
        """Copy rank 0's `array` to all ranks."""
        ...

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        ...

    def broadcast_object(self, value: Any = None) -> Any:
        """Return the `value` that rank 0 gives."""
        ...

    def scatter_objects(self, values: Sequence[Any] | None = None) -> Any:
        """Return this rank's item of rank 0's `values`, which has one for each rank."""
        ...

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Return all ranks' values in order on rank 0, and None elsewhere."""
        ...

    def all_gather_objects(self, value: Any) -> list[Any]:
        """Return all ranks' values in order."""
        ...
