"""Work on large arrays, divided among threads. Unlike Numba's and BLAS's threads, these do not spin while idle."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from tinygrad_chat.backend.host_threads import product_threads

WORTH_THREADS = 1 << 20  # elements: with half as many, starting a thread costs what it gains


def threads_for(elements: int) -> int:
    """Return how many threads work on so many elements pays for."""
    return product_threads() if elements >= WORTH_THREADS else 1


def in_threads(work: Callable[[int, int], None], parts: int) -> None:
    """Call work(part, parts) for every part, each in its own thread."""
    threads = [threading.Thread(target=work, args=(part, parts)) for part in range(1, parts)]
    for thread in threads:
        thread.start()
    work(0, parts)
    for thread in threads:
        thread.join()


def divided(compute: Callable[..., None], *arrays: np.ndarray) -> None:
    """Call `compute` on the arrays, or on parts of their first axis in several threads if they are large.

    It must treat each element, or each row, by itself: so the result is the same bit for bit.
    """
    count = len(arrays[0])
    parts = min(threads_for(arrays[0].size), count)
    if parts < 2:
        compute(*arrays)
        return

    def work(part: int, parts: int) -> None:
        own = slice(part * count // parts, (part + 1) * count // parts)
        compute(*(array[own] for array in arrays))

    in_threads(work, parts)
