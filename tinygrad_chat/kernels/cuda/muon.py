"""Muon's products by our own gemm, in float32, which adds to what is already there."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous
from tinygrad_chat.kernels.cuda.matmul import gemm
from tinygrad_chat.optim.muon import POLAR_EXPRESS, with_equal_rows


def orthogonalize(x: Any) -> Any:
    """`optim.muon.orthogonalize`, of a matrix or a stack: three products and two scalings a round."""
    xp, x = array_module(x), contiguous(with_equal_rows(x), np.float32)
    R, K = x.shape[-2:]
    square = (*x.shape[:-2], min(R, K), min(R, K))
    for a, b, c in POLAR_EXPRESS:
        transposed = x.swapaxes(-1, -2)
        pair = (x, transposed) if R <= K else (transposed, x)
        gram = gemm(*pair, xp.empty(square, np.float32), tf32=False)
        mixture = gemm(gram, gram, gram * b, tf32=False, scale=c, add=True)
        pair = (mixture, x) if R <= K else (x, mixture)
        x = gemm(*pair, x * a, tf32=False, add=True)
    return x
