"""How many threads of the processor the products of matrices take: BLAS's, and those of compiled kernels."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar

import threadpoolctl


@functools.cache
def blas() -> threadpoolctl.ThreadpoolController:
    """Return the libraries that multiply matrices for NumPy."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def count_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas_threads() -> int:
    """Return how many threads BLAS takes, which follows the variables that users know (OMP_NUM_THREADS and its kin);
    where that cannot be found out, one for each core."""
    return max((library.num_threads for library in blas().lib_controllers), default=count_cores())


_alone: ContextVar[bool] = ContextVar("_alone", default=False)
_all_threads = functools.cache(blas_threads)  # asked once, as it takes a while


def product_threads() -> int:
    """Return how many threads compiled products take: as many as BLAS."""
    return 1 if _alone.get() else _all_threads()


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Let each product take one thread: the caller has work for all cores by itself.

    For compiled products that holds in this context and its copies, for BLAS everywhere.
    """
    _all_threads()  # before BLAS has but one
    token = _alone.set(True)
    try:
        with blas().limit(limits=1):
            yield
    finally:
        _alone.reset(token)


def limit_threads(threads: int) -> None:
    """Let all products take that many threads, and no more than there are cores, from now on."""
    blas().limit(limits=min(threads, count_cores()))
    _all_threads.cache_clear()
