"""The linear layer: bias added in place, and the product transposed where there are few rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygrad_chat.ops.matmul import check_linear
from tinygrad_chat.ops.shape import rows_of

FEW = 32  # rows: with so few, packing the weight is most of the work of BLAS
LARGE = 1 << 16  # elements of a weight: packing a smaller one costs little
MANY = 1 << 14  # elements of a result: zeroing so many takes as long as the extra overhead of `@` over `dot`

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""rows (N, C), weight (D, C) -> (N, D)"""


def product(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """rows (N, C) times weight (D, C) transposed -> (N, D).

    OpenBLAS needs half as long with a large matrix on the left as with one on the right.
    """
    if len(rows) <= FEW and weight.size >= LARGE:
        return np.ascontiguousarray(weight.dot(rows.T).T)
    return _multiply(rows, weight.T)


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, K) @ b (K, N). Small results use `dot`, which has half the call overhead but fills its result with zeros
    first."""
    return a.dot(b) if len(a) * b.shape[1] < MANY else np.matmul(a, b)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, product: Product = product):
    """`ops.linear`."""
    check_linear(x, weight, bias)
    D = len(weight)
    rows = rows_of(x)
    out = product(rows, weight)
    if bias is not None:
        out += bias

    def backward(d_out: np.ndarray):
        d_rows = rows_of(d_out)
        d_bias = None if bias is None else d_rows.sum(axis=0)
        return _multiply(d_rows, weight).reshape(x.shape), _multiply(d_rows.T, rows), d_bias

    return out.reshape(*x.shape[:-1], D), backward
