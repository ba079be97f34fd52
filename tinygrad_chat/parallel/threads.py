"""Ranks that are threads of this process, and the number of threads for matrix products."""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from tinygrad_chat.backend.host_threads import blas_threads, limit_threads, one_thread_each
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.parallel.communicator import Communicator

Result = TypeVar("Result")
SLICE = 1 << 16  # elements summed at a time, so that they stay in the cache


class ThreadTeam:
    """A team of `size` threads: the caller's own, which is rank 0, and others that end with the work."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[Communicator], Result]) -> list[Result]:
        """Run `work` on all ranks in parallel, in the caller's context; return the results in the order of ranks.

        Meanwhile a matrix product uses one thread. If a rank fails, its error is raised once all ranks have finished.
        """
        meeting = _Meeting(self.size)
        started: list[threading.Thread] = []
        with one_thread_each():
            others = [
                threading.Thread(target=contextvars.copy_context().run, args=(meeting.attend, work, rank))
                for rank in range(1, self.size)
            ]
            try:
                for thread in others:
                    thread.start()
                    started.append(thread)
            except BaseException:  # no more threads, or Ctrl-C: wake the ranks at the barrier
                meeting.barrier.abort()
                raise
            else:
                meeting.attend(work, 0)
            finally:
                for thread in started:
                    thread.join()
        for error in sorted(meeting.errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error  # the cause, rather than the broken barrier that it led to in other ranks
        return meeting.results

    def do(self, pieces: Sequence[Callable[[], object]]) -> None:
        """Run independent pieces of work, distributed round-robin over the threads."""

        def work(communicator: Communicator) -> None:
            for piece in pieces[communicator.rank :: self.size]:
                piece()

        self.run(work)


class _Meeting:
    """The state that the ranks share during one `run`."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.results: list[Any] = [None] * size
        self.errors: list[BaseException] = []
        self.barrier = threading.Barrier(size)

    def attend(self, work: Callable[[Communicator], Any], rank: int) -> None:
        try:
            self.results[rank] = work(_Member(self, rank))
        except BaseException as error:  # raised in the caller's thread, a KeyboardInterrupt too
            self.errors.append(error)
            self.barrier.abort()  # this rank will not reach the barrier, so nobody may wait for it


class _Member:
    """The communicator of one rank."""

    overlaps = False

    def __init__(self, meeting: _Meeting, rank: int) -> None:
        self.rank, self.size = rank, len(meeting.values)
        self._meeting = meeting

    def all_reduce(self, array: np.ndarray) -> None:
        """Each rank sums its own share of the elements over all arrays, and writes the sum to all of them."""
        arrays = self._meet_with(array)
        parts = [np.array_split(each, self.size)[self.rank] for each in arrays]
        for pieces in _pieces(parts):
            total = functools.reduce(np.add, pieces)
            for piece in pieces:
                piece[...] = total
        self.barrier()

    def reduce_scatter(self, array: np.ndarray, shares: Sequence[slice], into: np.ndarray) -> None:
        """Each rank sums its share of all arrays, in the order of ranks."""
        parts = [each[shares[self.rank]] for each in self._meet_with(array)]
        for target, *pieces in _pieces([into, *parts]):
            target[...] = functools.reduce(np.add, pieces)
        self.barrier()

    def start_reduce_scatter(self, array: np.ndarray, shares: Sequence[slice], into: np.ndarray) -> Callable[[], None]:
        """Do it at once: each thread has its own share to sum."""
        self.reduce_scatter(array, shares, into)
        return lambda: None

    def all_gather(self, array: np.ndarray, shares: Sequence[slice]) -> None:
        """Each rank copies the others' shares."""
        for other, theirs in enumerate(self._meet_with(array)):
            if other != self.rank:
                array.reshape(-1)[shares[other]] = theirs[shares[other]]
        self.barrier()

    def broadcast(self, array: np.ndarray) -> None:
        """Each rank but the first copies rank 0's."""
        of_rank_0 = self._meet_with(array)[0]
        if self.rank:
            array.reshape(-1)[...] = of_rank_0
        self.barrier()

    def barrier(self) -> None:
        """Wait until every thread has reached this call."""
        self._meeting.barrier.wait()

    def broadcast_object(self, value: Any = None) -> Any:
        """Return rank 0's value itself, not a copy."""
        return self.all_gather_objects(value)[0]

    def scatter_objects(self, values: Sequence[Any] | None = None) -> Any:
        """Return this rank's item of rank 0's values itself, not a copy."""
        return self.all_gather_objects(values)[0][self.rank]

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Return the values themselves, not copies, on rank 0, and None elsewhere."""
        values = self.all_gather_objects(value)
        return None if self.rank else values

    def all_gather_objects(self, value: Any) -> list[Any]:
        """Return the values themselves, not copies."""
        self._meeting.values[self.rank] = value
        self.barrier()
        values = list(self._meeting.values)
        self.barrier()  # no rank may store its next value before all have read this one
        return values

    def _meet_with(self, array: np.ndarray) -> list[np.ndarray]:
        """Return all ranks' arrays, flat."""
        if not array.flags.c_contiguous:
            raise ShapeError(f"communicator: expected an array in one piece, received strides {array.strides}")
        arrays = self.all_gather_objects(array.reshape(-1))
        sizes = {each.size for each in arrays}
        if len(sizes) > 1:
            raise ShapeError(f"communicator: expected arrays of one size, received {sorted(sizes)}")
        return arrays


def _pieces(arrays: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield matching pieces of arrays of equal length, small enough for the cache."""
    for start in range(0, len(arrays[0]), SLICE):
        yield [array[start : start + SLICE] for array in arrays]


def use_threads(threads: int | None = None) -> int:
    """Set the number of threads for matrix products, if that is possible; return the number of threads to use.

    Products get at most one thread per core: on oversubscribed cores they are many times slower. None keeps the current
    number, which follows the usual variables (OMP_NUM_THREADS and others). If that is unknown, it is one for each core
    that this process may run on.
    """
    if threads is None:
        return blas_threads()
    limit_threads(threads)
    return threads
