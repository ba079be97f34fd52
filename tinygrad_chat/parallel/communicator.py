"""The interface between ranks that compute together: MPI's collective operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

FAREWELL = None
"""Broadcast by rank 0 when there is no more work."""


class Communicator(Protocol):
    """One rank among `size`. All ranks must call the same methods in the same order.

    Arrays are contiguous. `shares` is one slice per rank, in order; together they cover a flat array. With the same
    number of ranks, sums are bit-identical from run to run.
    """

    rank: int
    size: int
    overlaps: bool
    """Whether communication overlaps with this rank's computation at little cost: true on a network, false where the
    ranks' own cores move the data."""

    def all_reduce(self, array: Any) -> None:
        """Replace `array`, of the same shape on every rank, by the sum over all ranks."""
        ...

    def reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> None:
        """Write this rank's share of the sum of all ranks' flat arrays to `into`, an array as long as that share.

        `array` may be overwritten.
        """
        ...

    def start_reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> Callable[[], None]:
        """Start a `reduce_scatter` and return a function that waits for it; without asynchronous support, do it now.

        Until it has finished, neither array may be touched. Operations finish in the order in which they are started.
        """
        ...

    def all_gather(self, array: Any, shares: Sequence[slice]) -> None:
        """Copy each rank's share of the flat `array` to all ranks."""
        ...

    def broadcast(self, array: Any) -> None:
        """Copy rank 0's `array` to all ranks."""
        ...

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        ...

    def broadcast_object(self, value: Any = None) -> Any:
        """Return the `value` that rank 0 passed."""
        ...

    def scatter_objects(self, values: Sequence[Any] | None = None) -> Any:
        """Return this rank's item of rank 0's `values`, which has one per rank."""
        ...

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Return all ranks' values in order on rank 0, and None elsewhere."""
        ...

    def all_gather_objects(self, value: Any) -> list[Any]:
        """Return all ranks' values in order."""
        ...
