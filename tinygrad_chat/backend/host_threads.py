"""How many CPU threads matrix products use: those of BLAS and those of compiled kernels."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar

import threadpoolctl


@functools.cache
def blas() -> threadpoolctl.ThreadpoolController:
    """Return the BLAS libraries that NumPy uses."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def count_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas_threads() -> int:
    """Return how many threads BLAS uses, which follows the usual variables (OMP_NUM_THREADS and the like); if that is
    unknown, one per core."""
    return max((library.num_threads for library in blas().lib_controllers), default=count_cores())


_alone: ContextVar[bool] = ContextVar("_alone", default=False)
_all_threads = functools.cache(blas_threads)  # cached, as it is slow


def product_threads() -> int:
    """Return how many threads compiled products use: as many as BLAS, or 1 within `one_thread_each`."""
    return 1 if _alone.get() else _all_threads()


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Limit each product to one thread, for a caller that keeps all cores busy itself.

    For compiled products that holds in this context and its copies, for BLAS in the whole process.
    """
    _all_threads()  # cache the count before BLAS is limited
    token = _alone.set(True)
    try:
        with blas().limit(limits=1):
            yield
    finally:
        _alone.reset(token)


def limit_threads(threads: int) -> None:
    """Limit all products to that many threads, at most one per core, from now on."""
    blas().limit(limits=min(threads, count_cores()))
    _all_threads.cache_clear()
