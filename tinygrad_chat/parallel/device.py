"""Ranks whose arrays lie on a GPU each: NCCL moves those, and whatever connects the processes moves the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_chat.backend import Backend
from tinygrad_chat.backend.nccl import NcclGroup, connect_gpus
from tinygrad_chat.parallel.communicator import Communicator


class DeviceCommunicator:
    """A rank whose arrays are its `gpus`' and whose objects go by `host`."""

    overlaps = False  # all goes into one stream

    def __init__(self, host: Communicator, gpus: NcclGroup) -> None:
        self.rank, self.size = host.rank, host.size
        self._host, self._gpus = host, gpus

    def all_reduce(self, array: Any) -> None:
        """Let NCCL add up, in an order of its own that is the same each time."""
        self._gpus.all_reduce(array)

    def reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> None:
        """Let NCCL add up, in an order of its own that is the same each time."""
        self._gpus.reduce_scatter(array, shares, into)

    def start_reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> Callable[[], None]:
        """Put it into the current stream, behind what was computed so far and before what will be."""
        self._gpus.reduce_scatter(array, shares, into)
        return lambda: None

    def all_gather(self, array: Any, shares: Sequence[slice]) -> None:
        """Let every rank's share of the flat `array` be what it is on that rank."""
        self._gpus.all_gather(array, shares)

    def broadcast(self, array: Any) -> None:
        """Let `array` be what it is on rank 0."""
        self._gpus.broadcast(array)

    def barrier(self) -> None:
        """Wait until every rank has come here; its GPU may still be computing."""
        self._host.barrier()

    def broadcast_object(self, value: Any = None) -> Any:
        """Return the `value` that rank 0 gives."""
        return self._host.broadcast_object(value)

    def scatter_objects(self, values: Sequence[Any] | None = None) -> Any:
        """Return the one of rank 0's `values` that is this rank's."""
        return self._host.scatter_objects(values)

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Return all ranks' values in order on rank 0, and None elsewhere."""
        return self._host.gather_objects(value)

    def all_gather_objects(self, value: Any) -> list[Any]:
        """Return all ranks' values in order."""
        return self._host.all_gather_objects(value)


def on_devices(communicator: Communicator, backend: Backend) -> Communicator:
    """Return what moves arrays of `backend` from rank to rank. Raises BackendError for a GPU without NCCL."""
    if backend.name == "numpy":
        return communicator
    return DeviceCommunicator(
        communicator, connect_gpus(communicator.size, communicator.rank, communicator.broadcast_object)
    )
