"""Products with quantised weights, converted to float32 a few rows at a time, so that these stay in the cache."""

from __future__ import annotations

import numpy as np

from tinygrad_chat.nn.quantized import QuantizedWeight
from tinygrad_chat.ops.matmul import check_linear
from tinygrad_chat.ops.shape import rows_of

SLICE = 1 << 18  # numbers converted at a time


def quantized_product(x: np.ndarray, weight: QuantizedWeight) -> np.ndarray:
    """`nn.quantized.quantized_product`, without converting the whole weight to float32 at once."""
    check_linear(x, weight, None)
    D, C = weight.shape
    rows, step = rows_of(x), max(1, SLICE // max(1, C))
    out = np.empty((len(rows), D), x.dtype)
    for start in range(0, D, step):
        lines = slice(start, min(start + step, D))
        out[:, lines] = rows.dot(weight.rows(lines).T)
    return out.reshape(*x.shape[:-1], D)
