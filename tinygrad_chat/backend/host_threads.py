"""How many threads of the processor the products of matrices take: BLAS's, and those of compiled kernels."""

from __future__ import annotations

import functools
import os

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


@functools.cache
def product_threads() -> int:
    """Return how many threads compiled products take: as many as BLAS. It is asked once, as that takes a while."""
    return blas_threads()


def limit_threads(threads: int) -> None:
    """Let all products take that many threads, and no more than there are cores, from now on."""
    blas().limit(limits=min(threads, count_cores()))
    product_threads.cache_clear()
