"""Products of few rows with a weight, which is read once, as it lies in memory: BLAS would put it in order before.

A row's sums are added up in one order, alone or among others, in one thread or several: it gives the same to the bit.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numba import prange

from tinygrad_chat.backend.host_threads import product_threads
from tinygrad_chat.kernels.numba.compilation import compiled, compiled_for_threads
from tinygrad_chat.kernels.numba.vectors import LINES, sums_of_products

TOGETHER = 4  # rows that share what is read of the weight
IN_CACHE = 64  # rows, which are read again for each group of lines
WORTH_THREADS = 1 << 17  # numbers of a weight: a smaller one is read sooner than a thread has come

_sums_of_one, _sums_of_several = sums_of_products(1), sums_of_products(TOGETHER)
sharing = threading.Lock()
"""Whoever has Numba's threads: not all of its pools can be shared."""


def product(
    numbers: np.ndarray, weight: np.ndarray, sizes: np.ndarray | None = None, scales: np.ndarray | None = None
) -> np.ndarray:
    """numbers (N, C) times weight (D, C) transposed -> (N, D) in float32, of types as `vectors` has them.

    Each number of the product is multiplied by its row's size (N,) and its line's scale (D,), where there are any. C
    is a multiple of 32, and D at least 4.
    """
    out = np.empty((len(numbers), len(weight)), np.float32)
    parts = product_threads() if weight.size >= WORTH_THREADS else 1
    sums = np.empty((parts, TOGETHER, LINES), np.int32 if weight.dtype == np.int8 else np.float32)
    if parts == 1:
        _multiply(numbers, sizes, weight, scales, 0, 1, sums[0], out)
    else:
        with sharing:
            _multiply_in_threads(numbers, sizes, weight, scales, sums, out)
    return out


@compiled
def _multiply(numbers: Any, sizes: Any, weight: Any, scales: Any, part: int, parts: int, sums: Any, out: Any) -> None:
    """Fill a part of the columns of `out` (N, D). `sums` is a place to work in.

    The last group of lines ends with the last line, and may share some with the one before.
    """
    groups = (len(weight) + LINES - 1) // LINES
    for first in range(0, len(numbers), IN_CACHE):
        end = min(first + IN_CACHE, len(numbers))
        for group in range(part * groups // parts, (part + 1) * groups // parts):
            line, row = min(group * LINES, len(weight) - LINES), first
            while row < end:
                together = 1
                if row + TOGETHER <= end:
                    together = TOGETHER
                    _sums_of_several(numbers, row, weight, line, sums)
                else:
                    _sums_of_one(numbers, row, weight, line, sums)
                for r in range(together):
                    for k in range(LINES):
                        total = np.float32(sums[r, k])
                        if sizes is not None:
                            total *= sizes[row + r] * scales[line + k]
                        out[row + r, line + k] = total
                row += together


@compiled_for_threads
def _multiply_in_threads(numbers: Any, sizes: Any, weight: Any, scales: Any, sums: Any, out: Any) -> None:
    for part in prange(len(sums)):
        _multiply(numbers, sizes, weight, scales, part, len(sums), sums[part], out)
