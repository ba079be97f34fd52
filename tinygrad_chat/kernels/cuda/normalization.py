"""Normalisation: one kernel forward, one backward, and two for the gradients of gain and bias, sums over rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous, launch, per_thread, per_warp, width
from tinygrad_chat.kernels.cuda.sums import add_chunks, chunks_of
from tinygrad_chat.ops.normalization import check_row_vector


def layernorm(x: Any, gain: Any, bias: Any = None, *, epsilon: float = 1e-5):
    """`ops.layernorm`, saving two numbers a row."""
    check_row_vector("layernorm", "gain", gain, x)
    check_row_vector("layernorm", "bias", bias, x)
    return _normalization(x, gain, bias, epsilon, centred=True)


def rmsnorm(x: Any, gain: Any = None, *, epsilon: float = 1e-5):
    """`ops.rmsnorm`: layernorm's maths with 0 for the mean."""
    check_row_vector("rmsnorm", "gain", gain, x)
    out, layernorm_backward = _normalization(x, gain, None, epsilon, centred=False)

    def backward(d_out: Any):
        return layernorm_backward(d_out)[:2]

    return out, backward


def _normalization(x: Any, gain: Any, bias: Any, epsilon: float, *, centred: bool):
    xp, real, C = array_module(x), x.dtype, x.shape[-1]
    x = contiguous(x, real)
    out, N = xp.empty_like(x), x.size // max(C, 1)
    statistics = xp.empty((N, 2), np.float32)
    wide = width(C, x, gain, bias, out) > 1
    settings = N, C, epsilon, centred, wide
    launch("normalization.cu", "normalize", real, per_warp(N), x, gain, bias, out, statistics, *settings)

    def backward(d_out: Any):
        d_out, d_x = contiguous(d_out, real), xp.empty_like(x)
        wide = width(C, x, gain, d_out, d_x) > 1
        arrays = x, gain, statistics, d_out, d_x
        launch("normalization.cu", "normalize_backward", real, per_warp(N), *arrays, N, C, centred, wide)
        if gain is None:
            return d_x, None, None
        partial = xp.empty((chunks_of(N), 2, C), np.float32)
        grid = per_thread(C), len(partial)
        launch("normalization.cu", "normalize_backward_columns", real, grid, x, statistics, d_out, partial, N, C)
        d_gain, d_bias = add_chunks(partial, real)
        return d_x, d_gain, None if bias is None else d_bias

    return out, backward
