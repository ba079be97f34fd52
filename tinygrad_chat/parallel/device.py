"""Ranks with a GPU each: NCCL transfers arrays, and the processes' own communicator everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_chat.backend import Backend
from tinygrad_chat.backend.nccl import NcclGroup, connect_gpus
from tinygrad_chat.parallel.communicator import Communicator


class DeviceCommunicator:
    """A rank that sends arrays through `gpus` and objects through `host`."""

    overlaps = False  # everything runs in one CUDA stream

    def __init__(self, host: Communicator, gpus: NcclGroup) -> None:
        self.rank, self.size = host.rank, host.size
        self._host, self._gpus = host, gpus

    def all_reduce(self, array: Any) -> None:
        """Sum by NCCL, in an order that is NCCL's own but the same each time."""
        self._gpus.all_reduce(array)

    def reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> None:
        """Sum by NCCL, in an order that is NCCL's own but the same each time."""
        self._gpus.reduce_scatter(array, shares, into)

    def start_reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> Callable[[], None]:
        """Enqueue it in the current stream, after all earlier work and before all later work."""
        self._gpus.reduce_scatter(array, shares, into)
        return lambda: None

    def all_gather(self, array: Any, shares: Sequence[slice]) -> None:
        """Copy each rank's share of the flat `array` to all ranks."""
        self._gpus.all_gather(array, shares)

    def broadcast(self, array: Any) -> None:
        """Copy rank 0's `array` to all ranks."""
        self._gpus.broadcast(array)

    def barrier(self) -> None:
        """Wait until every rank has reached this call; its GPU may still be computing."""
        self._host.barrier()

    def broadcast_object(self, value: Any = None) -> Any:
        """Return the `value` that rank 0 passed."""
        return self._host.broadcast_object(value)

    def scatter_objects(self, values: Sequence[Any] | None = None) -> Any:
        """Return this rank's item of rank 0's `values`."""
        return self._host.scatter_objects(values)

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Return all ranks' values in order on rank 0, and None elsewhere."""
        return self._host.gather_objects(value)

    def all_gather_objects(self, value: Any) -> list[Any]:
        """Return all ranks' values in order."""
        return self._host.all_gather_objects(value)


def on_devices(communicator: Communicator, backend: Backend) -> Communicator:
    """Return the communicator for arrays of `backend`. Raises BackendError for a GPU without NCCL."""
    if backend.name == "numpy":
        return communicator
    return DeviceCommunicator(
        communicator, connect_gpus(communicator.size, communicator.rank, communicator.broadcast_object)
    )
