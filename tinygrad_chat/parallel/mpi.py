"""Ranks that are processes, on one machine or several, and communicate through MPI (extra `mpi`).

A separate thread makes the MPI calls, so that a rank that waits for a dead one can be woken with an error.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from importlib import metadata
from typing import Any, TypeVar

import numpy as np

from tinygrad_chat.errors import BackendError, RankError, ShapeError
from tinygrad_chat.formatting import one_line
from tinygrad_chat.parallel.window import SharedWindow, open_window

Result = TypeVar("Result")
BROADCAST = 1
EAGER_SECONDS, PAUSE = 0.002, 0.0005
"""Seconds for which a rank polls for rank 0's message without a pause; then the pause between polls."""
WHERE_RANKS_MAY_DIE = {"MPIR_CVAR_CH4_CMA_ENABLE": "0"}
"""Settings of MPICH. By default it reads another process's memory directly if permitted. If that process has ended,
MPICH ends this one and prints a dozen lines. With this setting it uses shared memory, a tenth to a quarter slower."""
KNOWN_AFTER = 9.0
"""Seconds within which heartbeats show which rank has ended (heartbeat.py)."""


def open_mpi() -> Any:
    """Return the module mpi4py.MPI, without initialising MPI. Raises BackendError without the extra or MPI library."""
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise BackendError(
            f"several ranks: need mpi4py and an MPI library ({error}): pip install tinygrad-chat[mpi]"
        ) from error
    return MPI


def describe_mpi() -> str:
    """Return the names and versions of the MPI library and its binding. Raises BackendError if there is none."""
    vendor, version = open_mpi().get_vendor()
    return f"{vendor} {'.'.join(map(str, version))}, by mpi4py {metadata.version('mpi4py')}"


class MpiCommunicator:
    """A rank of MPI's world communicator. `seconds` is the time spent waiting for communication, `calls` the number of
    calls started, and `waiting_since` when the current wait began, None if there is none.

    After `fail`, every waiting or later call raises that error.
    """

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._asked: queue.SimpleQueue[tuple[Future[Any], Callable[[Any], Any]] | None] = queue.SimpleQueue()
        self._begun: list[Future[Any]] = []
        self._error: Exception | None = None
        self._failed = threading.Event()
        self._exchange: SharedWindow | Messages
        self._thread = threading.Thread(target=self._work, name="mpi", daemon=True)
        self._thread.start()
        self.seconds, self.calls, self.overlaps = 0.0, 0, False
        self.waiting_since: float | None = None
        self.rank, self.size = self._do(lambda world: (world.Get_rank(), world.Get_size()))

    def all_reduce(self, array: np.ndarray) -> None:
        """Sum by MPI, in an order that is MPI's own but the same each time."""
        self._do(lambda world: world.Allreduce(self._mpi.IN_PLACE, _in_one_piece(array)))

    def reduce_scatter(self, array: np.ndarray, shares: Sequence[slice], into: np.ndarray) -> None:
        """Sum in the order of ranks in a shared window, otherwise in MPI's order, which is the same each time."""
        self.start_reduce_scatter(array, shares, into)()

    def start_reduce_scatter(self, array: np.ndarray, shares: Sequence[slice], into: np.ndarray) -> Callable[[], None]:
        """Do it in the thread that makes the MPI calls, while the calling thread continues."""
        return self._start(lambda world: self._exchange.reduce_scatter(_in_one_piece(array), shares, into))

    def all_gather(self, array: np.ndarray, shares: Sequence[slice]) -> None:
        """Copy each rank's share of the flat `array` to all ranks."""
        self._do(lambda world: self._exchange.all_gather(_in_one_piece(array), shares))

    def broadcast(self, array: np.ndarray) -> None:
        """Copy rank 0's `array` to all ranks."""
        self._do(lambda world: world.Bcast(_in_one_piece(array)))

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        self._do(lambda world: world.Barrier())

    def broadcast_object(self, value: Any = None) -> Any:
        """Return the `value` that rank 0 passed, or a copy. A long wait yields the core to others."""
        return self._do(functools.partial(_broadcast, value=value))

    def scatter_objects(self, values: Sequence[Any] | None = None) -> Any:
        """Return this rank's item of rank 0's `values`, or a copy."""
        return self._do(lambda world: world.scatter(values))

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Return all ranks' values in order on rank 0, and None elsewhere."""
        return self._do(lambda world: world.gather(value))

    def all_gather_objects(self, value: Any) -> list[Any]:
        """Return all ranks' values in order, or copies."""
        return self._do(lambda world: world.allgather(value))

    def ranks_here(self) -> list[int]:
        """Return the ranks on this machine: those that can share memory through MPI."""
        return self._do(lambda world: world.Split_type(self._mpi.COMM_TYPE_SHARED).allgather(world.Get_rank()))

    def fail(self, error: Exception) -> None:
        """Make every waiting and every later call raise `error`."""
        self._error = error
        self._failed.set()
        for future in self._begun:
            _answer(future.set_exception, error)

    def expect_no_failure(self) -> None:
        """Raise the error passed to `fail`, if any: for a rank that computes for long without communicating."""
        if self._error is not None:
            raise self._error

    def abort(self, code: int) -> None:
        """End this process, and let the launcher end the ranks that it can still reach."""
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the error is already reported; silence MPI's own message
        self._mpi.COMM_WORLD.Abort(code)

    def close(self) -> None:
        """Shut MPI down, together with all other ranks. Not to be called after `fail`."""
        self._asked.put(None)
        self._thread.join()

    def _do(self, call: Callable[[Any], Result]) -> Result:
        """Make a call in the MPI thread, and return its result."""
        return self._start(call)()

    def _start(self, call: Callable[[Any], Result]) -> Callable[[], Result]:
        """Make a call in the MPI thread, and return a function that waits for its result."""
        future: Future[Result] = Future()
        self._begun.append(future)
        self.expect_no_failure()
        self.calls += 1
        self._asked.put((future, call))

        def wait() -> Result:
            began = self.waiting_since = time.perf_counter()
            result = future.result()
            self.waiting_since = None
            self.seconds += time.perf_counter() - began
            self._begun.remove(future)
            return result

        return wait

    def _work(self) -> None:
        """Initialise MPI, make the requested calls, and finalise it."""
        for name, value in WHERE_RANKS_MAY_DIE.items():
            os.environ.setdefault(name, value)
        self._mpi.Init_thread(self._mpi.THREAD_FUNNELED)
        world = self._mpi.COMM_WORLD
        self._exchange = open_window(self._mpi, world) or Messages(self._mpi.IN_PLACE, world)
        while asked := self._asked.get():
            future, call = asked
            try:
                result = call(world)
            except self._mpi.Exception as error:  # another rank has ended; the monitor will soon know which
                self._failed.wait(KNOWN_AFTER)
                _answer(future.set_exception, self._error or RankError(f"MPI: {one_line(str(error))}"))
            except Exception as error:
                _answer(future.set_exception, error)
            else:
                _answer(future.set_result, result)
        self._mpi.Finalize()


class Messages:
    """The exchange of arrays by MPI's own collectives, for ranks without a shared window."""

    def __init__(self, in_place: Any, world: Any) -> None:
        self._in_place, self._world = in_place, world

    def reduce_scatter(self, array: np.ndarray, shares: Sequence[slice], into: np.ndarray) -> None:
        """Write this rank's share of the sum of all ranks' flat arrays to `into`."""
        self._world.Reduce_scatter(array, into, _counts(shares))

    def all_gather(self, array: np.ndarray, shares: Sequence[slice]) -> None:
        """Copy each rank's share of the flat `array` to all ranks."""
        self._world.Allgatherv(self._in_place, [array, _counts(shares)])


def _broadcast(world: Any, value: Any) -> Any:
    """Broadcast by polling: MPI's own would keep a core busy while rank 0 evaluates or saves."""
    if world.Get_rank() == 0:
        for rank in range(1, world.Get_size()):
            world.send(value, dest=rank, tag=BROADCAST)
        return value
    patient_until = time.perf_counter() + EAGER_SECONDS
    while not world.iprobe(source=0, tag=BROADCAST):
        time.sleep(PAUSE if time.perf_counter() > patient_until else 0)
    return world.recv(source=0, tag=BROADCAST)


def _answer(give: Callable[[Any], None], value: Any) -> None:
    with contextlib.suppress(InvalidStateError):  # `fail` has already set an error
        give(value)


def _counts(shares: Sequence[slice]) -> list[int]:
    return [share.stop - share.start for share in shares]


def _in_one_piece(array: np.ndarray) -> np.ndarray:
    if not array.flags.c_contiguous:
        raise ShapeError(f"communicator: expected an array in one piece, received strides {array.strides}")
    return array
