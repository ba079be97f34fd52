"""Products of a few rows with a weight, which is read once and in place: BLAS would pack it first.

A row is summed in the same order alone or in a batch, in one thread or several: its result is the same bit for bit.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numba import prange

from tinygrad_chat.backend.host_threads import product_threads
from tinygrad_chat.kernels.numba.compilation import compiled_for_threads, inlined
from tinygrad_chat.kernels.numba.vectors import LINES, sums_of_products

TOGETHER = 4  # rows that share each read of the weight
IN_CACHE = 64  # rows that stay in the cache, as each group of lines reads them again
WORTH_THREADS = 1 << 17  # numbers of a weight: a smaller one is read before a thread has started

_sums_of_one, _sums_of_several = sums_of_products(1), sums_of_products(TOGETHER)
sharing = threading.Lock()
"""Held while Numba's threads are in use: not all of its thread pools can be shared."""


def product(
    numbers: np.ndarray, weight: np.ndarray, sizes: np.ndarray | None = None, scales: np.ndarray | None = None
) -> np.ndarray:
    """numbers (N, C) times weight (D, C) transposed -> (N, D) in float32, for the types that `vectors` supports.

    Each number of the product is multiplied by its row's size (N,) and its line's scale (D,), if given. C must be a
    multiple of 32, and D at least 4.
    """
    out = np.empty((len(numbers), len(weight)), np.float32)
    parts = product_threads() if weight.size >= WORTH_THREADS else 1
    if parts == 1:
        _multiply(numbers, sizes, weight, scales, 0, 1, out)
    else:
        with sharing:
            _multiply_in_threads(numbers, sizes, weight, scales, parts, out)
    return out


@inlined
def _multiply(numbers: Any, sizes: Any, weight: Any, scales: Any, part: int, parts: int, out: Any) -> None:
    """Fill a part of the columns of `out` (N, D).

    The last group of lines ends with the last line, and may overlap the one before.
    """
    groups = (len(weight) + LINES - 1) // LINES
    for first in range(0, len(numbers), IN_CACHE):
        end = min(first + IN_CACHE, len(numbers))
        for group in range(part * groups // parts, (part + 1) * groups // parts):
            line, row = min(group * LINES, len(weight) - LINES), first
            while row + TOGETHER <= end:
                _sums_of_several(numbers, row, weight, line, sizes, scales, out)
                row += TOGETHER
            while row < end:
                _sums_of_one(numbers, row, weight, line, sizes, scales, out)
                row += 1


@compiled_for_threads
def _multiply_in_threads(numbers: Any, sizes: Any, weight: Any, scales: Any, parts: int, out: Any) -> None:
    for part in prange(parts):
        _multiply(numbers, sizes, weight, scales, part, parts, out)
