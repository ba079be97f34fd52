"""nanochat's learned sums, one pass each: scales and their gradients, sums over all elements, stay on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import MAX_CHUNKS, contiguous, launch, per_thread, per_warp, width
from tinygrad_chat.kernels.cuda.slices import dense_rows
from tinygrad_chat.kernels.cuda.sums import add_chunks, chunks_of
from tinygrad_chat.ops.mixing import check_gated_sum, check_scaled_sum, check_smear


def scaled_sum(x: Any, y: Any, y_scales: Any, x_scales: Any = None, *, layer: int = 0, subtract: bool = False):
    """`ops.scaled_sum`. The gradients of scales are float32."""
    check_scaled_sum(x, y, y_scales, x_scales, layer)
    xp, real, size = array_module(x), x.dtype, x.size
    x, y, y_scales = (contiguous(array, real) for array in (x, y, y_scales))
    x_scales = None if x_scales is None else contiguous(x_scales, real)
    out, sign = xp.empty_like(x), -1.0 if subtract else 1.0
    each = width(size, x, y, out)
    arrays = x, y, y_scales, x_scales, out
    launch("mixing.cu", "scaled_sum", real, per_thread(size, each), *arrays, size, layer, sign, each > 1)

    def backward(d_out: Any):
        d_out, d_y = contiguous(d_out, real), xp.empty_like(y)
        d_x = None if x_scales is None else xp.empty_like(x)
        each = width(size, x, y, d_out, d_x, d_y)
        partial = xp.empty((min(max(per_thread(size, each), 1), 4 * MAX_CHUNKS), 2), np.float32)
        arrays = x, y, y_scales, x_scales, d_out, d_x, d_y, partial
        launch("mixing.cu", "scaled_sum_backward", real, len(partial), *arrays, size, layer, sign, each > 1)
        d_y_scales = xp.empty(y_scales.shape, np.float32)
        d_x_scales = None if x_scales is None else xp.empty(x_scales.shape, np.float32)
        sizes = len(partial), len(y_scales)
        arrays = partial, d_y_scales, d_x_scales
        launch("mixing.cu", "scaled_sum_backward_scales", real, 1, *arrays, *sizes, layer, sign)
        return d_out if d_x is None else d_x, d_y, d_y_scales, d_x_scales

    return out, backward


def gated_sum(x: Any, y: Any, logits: Any, *, reach: float):
    """`ops.gated_sum`, saving nothing but its inputs. x and its gradient may be slices of larger arrays."""
    check_gated_sum(x, y, logits)
    xp, real = array_module(x), x.dtype
    N, G, D = logits.size, logits.shape[-1], x.shape[-1] // logits.shape[-1]
    rows, y, logits = dense_rows(x, real), contiguous(y, real), contiguous(logits, real)
    out, reach, apart = xp.empty(x.shape, real), float(reach), rows.strides[0] // rows.itemsize
    each = width(D, rows, y, out)
    wide = each > 1 and apart % each == 0
    launch("mixing.cu", "gated_sum", real, per_warp(N), rows, y, logits, out, N, G, D, apart, reach, wide)

    def backward(d_out: Any):
        d_rows, d_y, d_logits = dense_rows(d_out, real), xp.empty_like(y), xp.empty_like(logits)
        d_apart = d_rows.strides[0] // d_rows.itemsize
        each = width(D, y, d_rows, d_y)
        arrays, sizes = (y, logits, d_rows, d_y, d_logits), (N, G, D, d_apart)
        wide = each > 1 and d_apart % each == 0
        launch("mixing.cu", "gated_sum_backward", real, per_warp(N), *arrays, *sizes, reach, wide)
        return d_out, d_y, d_logits

    return out, backward


def smear(x: Any, weight: Any, scale: Any, *, before: Any = None):
    """`ops.smear`, saving one number per row. The gradients of weight and scale are float32."""
    check_smear(x, weight, scale, before)
    xp, real, (B, T, C), K = array_module(x), x.dtype, x.shape, weight.shape[1]
    x, weight, scale = (contiguous(array, real) for array in (x, weight, scale))
    before = None if before is None else contiguous(before, real)
    N, out = B * T, xp.empty_like(x)
    openness = xp.empty(N, np.float32)
    wide = width(C, x, before, out) > 1
    arrays = x, weight, scale, before, out, openness
    launch("mixing.cu", "smear", real, per_warp(N), *arrays, N, T, C, K, wide)

    def backward(d_out: Any):
        d_out, d_x, d_rows = contiguous(d_out, real), xp.empty_like(x), xp.empty((N, 2), np.float32)
        wide = width(C, x, before, d_out, d_x) > 1
        arrays = x, weight, scale, before, openness, d_out, d_x, d_rows
        launch("mixing.cu", "smear_backward", real, per_warp(N), *arrays, N, T, C, K, wide)
        partial = xp.empty((chunks_of(N), K + 1), np.float32)
        grid = per_thread(K + 1), len(partial)
        launch("mixing.cu", "smear_backward_columns", real, grid, x, d_rows, partial, N, C, K)
        sums = add_chunks(partial, real)
        return d_x, sums[None, :K], sums[K:]

    return out, backward
