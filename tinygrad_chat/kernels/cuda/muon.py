"""Muon's update of all matrices of one shape: three passes before the products, three after them, and none between
products but to round what they multiply. The products add to what is there, with sums in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous, launch, per_thread, per_warp, width
from tinygrad_chat.kernels.cuda.matmul import gemm
from tinygrad_chat.optim.polar_express import POLAR_EXPRESS

FILE = "muon.cu"
ROWS_OF_A_CHUNK = 16  # at least, so that there are far fewer partial sums of columns to add than elements
MAX_CHUNKS = 16  # of a matrix: together with its columns and the other matrices, enough to fill a GPU


def update_matrices(
    data: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    scalars: Any,
    *,
    spans: Sequence[slice],
    starts: Any,
    compute_weights: Any = None,
    grad_scale: Any = None,
    factors: Any = None,
    beta_2: float = 0.9,
) -> None:
    """`optim.muon.update_matrices`, on weights and gradients where they lie, with scalars in device memory."""
    N, R, K = mean.shape
    xp, real = array_module(data), np.dtype(np.float32) if compute_weights is None else compute_weights.dtype

    def is_wide(*arrays: Any) -> bool:
        each = width(K, *arrays)
        return each > 1 and all(span.start % each == 0 for span in spans)

    ahead, squares = xp.empty_like(mean), xp.empty((N, R), np.float32)
    arrays = gradient, starts, mean, ahead, squares, grad_scale, scalars
    wide = is_wide(gradient, mean, ahead)
    launch(FILE, "look_ahead", np.float32, per_warp(N * R), *arrays, N * R, R, K, wide)
    x = orthogonalize(ahead, squares, factors=factors)
    sums, of_lines = line_squares(x), xp.empty_like(square)
    arrays = sums, square, of_lines, grad_scale
    launch(FILE, "even_out", np.float32, N, *arrays, sums.shape[1], max(R, K), min(R, K), 1 - beta_2)
    arrays = data, compute_weights, starts, x, of_lines, grad_scale, scalars
    stretch, wide = math.sqrt(max(1.0, R / K)), is_wide(data, compute_weights, x, of_lines)
    launch(FILE, "move_matrices", real, per_warp(N * R), *arrays, N * R, R, K, R >= K, stretch, wide)


def orthogonalize(x: Any, squares: Any, *, factors: Any = None) -> Any:
    """`optim.polar_express.orthogonalize` of a stack x (N, R, K), given the squares (N, R) of the norms of its rows:
    three products a round, and between them a copy of what is multiplied next."""
    xp, real, (N, R, K) = array_module(x), np.dtype(factors or np.float32), x.shape
    scales, out, factor = xp.empty_like(squares), xp.empty_like(x), xp.empty(x.shape, real)
    launch(FILE, "equal_rows", np.float32, N, squares, scales, R)
    wide = width(K, x, out, factor) > 1
    launch(FILE, "scale_rows", real, per_warp(N * R), x, scales, out, factor, N * R, K, wide)
    gram = xp.empty((N, min(R, K), min(R, K)), np.float32)
    for number, (a, b, c) in enumerate(POLAR_EXPRESS):
        if number > 0:
            factor = out.astype(real)
        transposed = factor.swapaxes(-1, -2)
        pair = (factor, transposed) if R <= K else (transposed, factor)
        gemm(*pair, gram, tf32=False)
        multiplied = gram.astype(real)
        gemm(multiplied, multiplied, gram, tf32=False, scale=c, add=b)
        mixture = contiguous(gram, real)
        pair = (mixture, factor) if R <= K else (factor, mixture)
        gemm(*pair, out, tf32=False, add=a)
    return out


def line_squares(x: Any) -> Any:
    """Return the sums of squares of the rows of x (N, R, K) if R >= K: (N, 1, R); else those of its columns, within
    each chunk of its rows: (N, chunks, K)."""
    xp, (N, R, K) = array_module(x), x.shape
    chunks = 1 if R >= K else min(-(-R // ROWS_OF_A_CHUNK), MAX_CHUNKS)
    sums = xp.empty((N, chunks, max(R, K)), np.float32)
    if R >= K:
        launch(FILE, "row_squares", np.float32, per_warp(N * R), x, sums, N * R, K, width(K, x) > 1)
    else:
        each = width(K, x, sums)
        launch(FILE, "column_squares", np.float32, (per_thread(K, each), chunks, N), x, sums, R, K, each > 1)
    return sums
