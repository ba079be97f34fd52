"""Muon's products by our own gemm, which adds to what is already there: sums in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous
from tinygrad_chat.kernels.cuda.matmul import gemm
from tinygrad_chat.optim.muon import POLAR_EXPRESS, with_equal_rows


def orthogonalize(x: Any, *, factors: Any = None) -> Any:
    """`optim.muon.orthogonalize`, of a matrix or a stack: three products and two scalings a round, and three copies if
    factors are rounded."""
    xp, x = array_module(x), contiguous(with_equal_rows(x), np.float32)
    R, K = x.shape[-2:]
    square, real = (*x.shape[:-2], min(R, K), min(R, K)), factors or np.float32
    for a, b, c in POLAR_EXPRESS:
        factor = contiguous(x, real)
        transposed = factor.swapaxes(-1, -2)
        pair = (factor, transposed) if R <= K else (transposed, factor)
        gram = gemm(*pair, xp.empty(square, np.float32), tf32=False)
        multiplied = contiguous(gram, real)
        mixture = gemm(multiplied, multiplied, gram * b, tf32=False, scale=c, add=True)
        mixture = contiguous(mixture, real)
        pair = (mixture, factor) if R <= K else (factor, mixture)
        x = gemm(*pair, x * a, tf32=False, add=True)
    return x
