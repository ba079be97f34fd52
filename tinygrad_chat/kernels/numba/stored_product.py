"""Products with stored weights as they lie in memory: to decode a token is to read every weight once.

With int8 weights the rows of x are rounded to whole numbers, too, of as many steps as leave a sum within 32 bits
(29,000 steps with 576 columns). From there on nothing is rounded before the end. So alone or among others, in one
thread or several, a row gives the same to the bit; so it does with float16 where there are no more than 64 rows.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numba import prange

from tinygrad_chat.backend.host_threads import product_threads
from tinygrad_chat.kernels.numba.compilation import as_rows, compiled, compiled_for_threads
from tinygrad_chat.kernels.numba.exponential import larger
from tinygrad_chat.kernels.numba.vectors import LINES, sums_of_products
from tinygrad_chat.kernels.numpy.stored_product import stored_product as product_by_blas
from tinygrad_chat.nn.stored import LARGEST_INT8, StoredWeight
from tinygrad_chat.ops.matmul import check_linear

TOGETHER = 4  # rows that share what is read of the weight
IN_CACHE = 64  # rows, which are read again for each group of lines
MOST_HALVES = 64  # rows, beyond which float16 is worth being turned into float32 for BLAS; whole numbers are faster
WORTH_THREADS = 1 << 17  # numbers of a weight: a smaller one is read sooner than a thread has come
LARGEST_INT16, LARGEST_INT32 = 2**15 - 1, 2**31 - 1

_sums_of_one, _sums_of_several = sums_of_products(1), sums_of_products(TOGETHER)
_sharing = threading.Lock()  # one product at a time has the threads: not all of Numba's thread pools can be shared


def stored_product(x: np.ndarray, weight: StoredWeight) -> np.ndarray:
    """`nn.stored.stored_product`; with int8, each row of x is rounded to steps of its largest number / `steps_of`."""
    check_linear(x, weight, None)
    rows, (D, _) = as_rows(x), weight.shape
    if rows.dtype != np.float32 or (weight.numbers.dtype == np.float16 and len(rows) > MOST_HALVES):
        return product_by_blas(x, weight)
    N, (lines, columns) = len(rows), weight.numbers.shape
    sizes, out = np.ones(N, np.float32), np.empty((N, lines), np.float32)
    if weight.numbers.dtype == np.int8:
        numbers, number = np.zeros((N, columns), np.int16), np.int32
        _round(rows, steps_of(columns), numbers, sizes)
        stored = weight.numbers
    else:
        numbers, number = rows, np.float32
        if rows.shape[1] != columns:
            numbers = np.zeros((N, columns), np.float32)
            numbers[:, : rows.shape[1]] = rows
        stored = weight.numbers.view(np.uint16)  # its bits: Numba has no float16
    parts = product_threads() if stored.size >= WORTH_THREADS else 1
    sums = np.empty((parts, TOGETHER, LINES), number)
    if parts == 1:
        _multiply(numbers, sizes, stored, weight.scales, 0, 1, sums[0], out)
    else:
        with _sharing:
            _multiply_in_threads(numbers, sizes, stored, weight.scales, sums, out)
    out = out if lines == D else np.ascontiguousarray(out[:, :D])
    return out.reshape(*x.shape[:-1], D)


def steps_of(columns: int) -> int:
    """Return the largest whole number to which x may be rounded so that a sum with int8 weights is within 32 bits."""
    return min(LARGEST_INT16, LARGEST_INT32 // (LARGEST_INT8 * columns))


@compiled
def _round(rows: Any, steps: int, numbers: Any, sizes: Any) -> None:
    """Write each row as whole numbers of at most `steps`, and of what size they are."""
    N, C = rows.shape
    zero = np.float32(0)
    for n in range(N):
        largest = zero
        for c in range(C):
            largest = larger(largest, abs(rows[n, c]))
        sizes[n] = largest / np.float32(steps)
        in_steps = np.float32(steps) / largest if largest > zero else zero
        for c in range(C):
            numbers[n, c] = np.int16(np.rint(rows[n, c] * in_steps))


@compiled
def _multiply(numbers: Any, sizes: Any, weight: Any, scales: Any, part: int, parts: int, sums: Any, out: Any) -> None:
    """Fill a part of the columns of `out` (N, D). `sums` is a place to work in."""
    groups = len(weight) // LINES
    for first in range(0, len(numbers), IN_CACHE):
        end = min(first + IN_CACHE, len(numbers))
        for group in range(part * groups // parts, (part + 1) * groups // parts):
            line, row = group * LINES, first
            while row < end:
                together = 1
                if row + TOGETHER <= end:
                    together = TOGETHER
                    _sums_of_several(numbers, row, weight, line, sums)
                else:
                    _sums_of_one(numbers, row, weight, line, sums)
                for r in range(together):
                    for k in range(LINES):
                        out[row + r, line + k] = np.float32(sums[r, k]) * (sizes[row + r] * scales[line + k])
                row += together


@compiled_for_threads
def _multiply_in_threads(numbers: Any, sizes: Any, weight: Any, scales: Any, sums: Any, out: Any) -> None:
    for part in prange(len(sums)):
        _multiply(numbers, sizes, weight, scales, part, len(sums), sums[part], out)
