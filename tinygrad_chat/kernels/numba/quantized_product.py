"""Products with quantised weights, used in place: decoding a token means reading every weight once.

With int8 weights the rows of x are quantised to integers, too, with as many steps as keep a sum within 32 bits (29,000
steps with 576 columns). After that nothing is rounded before the end. So a row's result is the same bit for bit, alone
or in a batch, in one thread or several; with float16 that holds for at most 64 rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.kernels.numba.compilation import as_rows, compiled
from tinygrad_chat.kernels.numba.exponential import larger
from tinygrad_chat.kernels.numba.products import product
from tinygrad_chat.kernels.numba.vectors import widened
from tinygrad_chat.kernels.numpy.quantized_product import quantized_product as product_by_blas
from tinygrad_chat.nn.quantized import LARGEST_INT8, QuantizedWeight
from tinygrad_chat.ops.matmul import check_linear

MAX_HALVES = 64  # rows, beyond which it pays to convert float16 to float32 for BLAS; integers are faster
SLICE = 1 << 20  # numbers converted at a time
LARGEST_INT16, LARGEST_INT32 = 2**15 - 1, 2**31 - 1


def quantized_product(x: np.ndarray, weight: QuantizedWeight) -> np.ndarray:
    """`nn.quantized.quantized_product`; with int8, x is quantised too, each row in steps of its largest number /
    `steps_of`."""
    check_linear(x, weight, None)
    rows, (D, _) = as_rows(x), weight.shape
    if rows.dtype != np.float32:
        return product_by_blas(x, weight)
    if weight.numbers.dtype == np.float16 and len(rows) > MAX_HALVES:
        return _product_of_halves(rows, weight).reshape(*x.shape[:-1], D)
    columns = weight.numbers.shape[1]
    if weight.numbers.dtype == np.int8:
        sizes, numbers = np.empty(len(rows), np.float32), np.zeros((len(rows), columns), np.int16)
        _round(rows, steps_of(columns), numbers, sizes)
        out = product(numbers, weight.numbers, sizes, weight.scales)
    else:
        numbers = rows
        if rows.shape[1] != columns:
            numbers = np.zeros((len(rows), columns), np.float32)
            numbers[:, : rows.shape[1]] = rows
        out = product(numbers, weight.numbers.view(np.uint16))  # its bits: Numba has no float16
    out = out if out.shape[1] == D else np.ascontiguousarray(out[:, :D])
    return out.reshape(*x.shape[:-1], D)


def steps_of(columns: int) -> int:
    """Return the largest integer to which x may be quantised so that a sum with int8 weights fits in 32 bits."""
    return min(LARGEST_INT16, LARGEST_INT32 // (LARGEST_INT8 * columns))


def _product_of_halves(rows: np.ndarray, weight: QuantizedWeight) -> np.ndarray:
    """Return rows (N, C) times a float16 weight (D, C) transposed, converted to float32 a few lines at a time."""
    (D, C), columns = weight.shape, weight.numbers.shape[1]
    step = min(D, max(1, SLICE // max(1, columns)))
    lines, out = np.empty((step, columns), np.float32), np.empty((len(rows), D), np.float32)
    for start in range(0, D, step):
        stop = min(start + step, D)
        _widen(weight.numbers[start:stop].view(np.uint16), lines)
        out[:, start:stop] = rows.dot(lines[: stop - start, :C].T)
    return out


@compiled
def _widen(bits: Any, out: Any) -> None:
    """Convert float16 numbers, given by their bits, to float32."""
    N, C = bits.shape
    for n in range(N):
        for c in range(C):
            out[n, c] = widened(bits[n, c])


@compiled
def _round(rows: Any, steps: int, numbers: Any, sizes: Any) -> None:
    """Quantise each row to integers of at most `steps` in magnitude; write the size of a step to `sizes`."""
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
