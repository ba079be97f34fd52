"""Ranks that are threads of this process, and how many threads the products of matrices may take."""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tinygrad_chat.backend.host_threads import blas, blas_threads, limit_threads
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.parallel.communicator import Communicator

Result = TypeVar("Result")
SLICE = 1 << 16  # elements that are added up while they are in the cache


class ThreadTeam:
    """`size` threads that do a work together: the caller's own, which is rank 0, and others that live as long as it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[Communicator], Result]) -> list[Result]:
        """Do `work` on every rank at once, in the caller's context; return the results in the order of ranks.

        Products of matrices take one thread meanwhile. An error of a rank is raised when no rank works any longer.
        """
        meeting = _Meeting(self.size)
        others = [
            threading.Thread(target=contextvars.copy_context().run, args=(meeting.attend, work, rank))
            for rank in range(1, self.size)
        ]
        started: list[threading.Thread] = []
        with blas().limit(limits=1):
            try:
                for thread in others:
                    thread.start()
                    started.append(thread)
            except BaseException:  # the system has no thread to give, or Ctrl-C: nobody waits for who never comes
                meeting.barrier.abort()
                raise
            else:
                meeting.attend(work, 0)
            finally:
                for thread in started:
                    thread.join()
        for error in sorted(meeting.errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error  # the cause, rather than what it did to those who waited for its rank
        return meeting.results

    def do(self, pieces: Sequence[Callable[[], object]]) -> None:
        """Do pieces of work that do not depend on each other, shared out in turn."""

        def work(communicator: Communicator) -> None:
            for piece in pieces[communicator.rank :: self.size]:
                piece()

        self.run(work)


class _Meeting:
    """What the ranks share while they do one work."""

    def __init__(self, size: int) -> None:
        self.arrays: list[Any] = [None] * size
        self.results: list[Any] = [None] * size
        self.errors: list[BaseException] = []
        self.barrier = threading.Barrier(size)

    def attend(self, work: Callable[[Communicator], Any], rank: int) -> None:
        try:
            self.results[rank] = work(_Member(self, rank))
        except BaseException as error:  # raised in the caller's thread, a KeyboardInterrupt too
            self.errors.append(error)
            self.barrier.abort()  # nobody waits for a rank that does not come


class _Member:
    """A rank at a meeting."""

    def __init__(self, meeting: _Meeting, rank: int) -> None:
        self.rank, self.size = rank, len(meeting.arrays)
        self._meeting = meeting

    def all_reduce(self, array: np.ndarray) -> None:
        """Each rank adds up its own share of the elements, of all arrays, and hands the sum to all."""
        if not array.flags.c_contiguous:
            raise ShapeError(f"all_reduce: expected an array in one piece, received strides {array.strides}")
        self._meeting.arrays[self.rank] = array.reshape(-1)
        self._meeting.barrier.wait()
        sizes = {each.size for each in self._meeting.arrays}
        if len(sizes) > 1:
            raise ShapeError(f"all_reduce: expected arrays of one size, received {sorted(sizes)}")
        shares = [np.array_split(each, self.size)[self.rank] for each in self._meeting.arrays]
        for start in range(0, len(shares[0]), SLICE):
            parts = [share[start : start + SLICE] for share in shares]
            total = functools.reduce(np.add, parts)
            for part in parts:
                part[...] = total
        self._meeting.barrier.wait()


def use_threads(threads: int | None = None) -> int:
    """Let products of matrices take `threads` threads from now on, where that can be set; return how many to use.

    They get no more than there are cores: threads of theirs that wait for a core make a product many times as slow.
    None leaves it at what they take already, which follows the variables that users know (OMP_NUM_THREADS and its kin);
    where that cannot be found out, it is one for each core that this process may run on.
    """
    if threads is None:
        return blas_threads()
    limit_threads(threads)
    return threads
