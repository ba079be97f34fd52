"""NCCL through CuPy's binding: all-reduce and the like between GPUs, each of which belongs to its own process."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tinygrad_chat.errors import BackendError


class NcclGroup:
    """One of `size` GPUs. Everything is queued on the current stream, and the host never blocks.

    `library` is cupy.cuda.nccl. Each rank's share is reduced by a separate call, all in one group, which NCCL runs as
    one operation: its own reduce-scatter supports equal shares only.
    """

    def __init__(self, library: Any, stream: Callable[[], int], size: int, identifier: Any, rank: int) -> None:
        self._nccl, self._stream, self._rank = library, stream, rank
        self._communicator = library.NcclCommunicator(size, identifier, rank)
        self._types = {
            "float32": library.NCCL_FLOAT32,
            "float64": library.NCCL_FLOAT64,
            "float16": library.NCCL_FLOAT16,
            "bfloat16": getattr(library, "NCCL_BFLOAT16", None),
        }

    def all_reduce(self, array: Any) -> None:
        """Replace `array` in place by its sum over all ranks."""
        pointer, total = array.data.ptr, self._nccl.NCCL_SUM
        self._communicator.allReduce(pointer, pointer, array.size, self._type(array), total, self._stream())

    def reduce_scatter(self, array: Any, shares: Sequence[slice], into: Any) -> None:
        """Sum the flat arrays of all ranks, and write this rank's share of the sum to `into`."""
        with self._as_one():
            for rank, share in enumerate(shares):
                count = share.stop - share.start
                if count:
                    source = array[share].data.ptr
                    target = into.data.ptr if rank == self._rank else source
                    total, kind = self._nccl.NCCL_SUM, self._type(array)
                    self._communicator.reduce(source, target, count, kind, total, rank, self._stream())

    def all_gather(self, array: Any, shares: Sequence[slice]) -> None:
        """Fill each rank's share of the flat `array` with that rank's values."""
        with self._as_one():
            for rank, share in enumerate(shares):
                if share.stop > share.start:
                    self._broadcast(array[share], rank)

    def broadcast(self, array: Any) -> None:
        """Overwrite `array` with that of rank 0."""
        self._broadcast(array, 0)

    def _broadcast(self, array: Any, rank: int) -> None:
        pointer = array.data.ptr
        self._communicator.broadcast(pointer, pointer, array.size, self._type(array), rank, self._stream())

    def _type(self, array: Any) -> int:
        kind = self._types.get(str(array.dtype))
        if kind is None:
            raise BackendError(f"NCCL: expected an array of {', '.join(self._types)}, received {array.dtype}")
        return kind

    @contextmanager
    def _as_one(self) -> Iterator[None]:
        self._nccl.groupStart()
        try:
            yield
        finally:
            self._nccl.groupEnd()


def connect_gpus(size: int, rank: int, share: Callable[[Any], Any]) -> NcclGroup:
    """Connect this process's GPU with those of all ranks; `share` sends rank 0's value to all ranks.

    Raises BackendError if CuPy has no NCCL.
    """
    try:
        cupy = importlib.import_module("cupy")
        nccl = importlib.import_module("cupy.cuda.nccl")  # not an attribute of cupy.cuda until imported
    except ImportError as error:
        raise BackendError(
            f"several GPUs: need NCCL ({error}): pip install nvidia-nccl-cu12, or nvidia-nccl-cu13 for CUDA 13"
        ) from error
    identifier = share(nccl.get_unique_id() if rank == 0 else None)
    return NcclGroup(nccl, lambda: cupy.cuda.get_current_stream().ptr, size, identifier, rank)
