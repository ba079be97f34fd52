"""The linear layer, with a compiled product where there are few rows, as in decoding."""

from __future__ import annotations

import numpy as np

from tinygrad_chat.kernels.numba.compilation import contiguous
from tinygrad_chat.kernels.numba.products import product as compiled_product
from tinygrad_chat.kernels.numba.vectors import LINES, STEP
from tinygrad_chat.kernels.numpy.linear import linear as linear_by_blas
from tinygrad_chat.kernels.numpy.linear import product as product_by_blas

MOST = 64  # rows: with more, the compiled product takes longer than BLAS


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None):
    """`ops.linear`."""
    return linear_by_blas(x, weight, bias, product=_product)


def _product(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """rows (N, C) times weight (D, C) transposed -> (N, D)."""
    D, C = weight.shape
    if len(rows) > MOST or weight.dtype != np.float32 or rows.dtype != np.float32 or C % STEP or D < LINES:
        return product_by_blas(rows, weight)
    # Memory-mapped weights are read-only: compiling for them, too, takes a second once, while copying them would take
    # longer than the product.
    lies_well = weight.flags.c_contiguous and weight.flags.aligned
    return compiled_product(contiguous(rows), weight if lies_well else contiguous(weight))
