"""Rotary position embedding, with the norm of queries and keys in the same pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_chat.autograd import may_overwrite
from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import WARP, contiguous, launch, per_thread, per_warp, width
from tinygrad_chat.kernels.cuda.slices import dense_rows
from tinygrad_chat.kernels.cuda.sums import PendingSums, chunks_of
from tinygrad_chat.ops.rotary import check_angles


def rotary(x: Any, gain: Any = None, *, cosine: Any, sine: Any, rms: float | None = None, epsilon: float = 1e-5):
    """`ops.rotary`. x and its gradient may be slices of larger arrays; if the gradient is not needed any more, it is
    rotated back in its place, beside the gradients of x's neighbours."""
    check_angles(x, gain, cosine, sine)
    xp, real = array_module(x), x.dtype
    T, D = len(cosine), 2 * cosine.shape[1]
    rows, cosine, sine = dense_rows(x, real), contiguous(cosine, np.float32), contiguous(sine, np.float32)
    gain = None if gain is None else contiguous(gain, real)
    N, out = x.size // D, xp.empty(x.shape, real)
    size = 0.0 if rms is None else float(rms)
    inverse_rms = xp.empty(N, np.float32) if size else None
    apart = rows.strides[0] // rows.itemsize
    sizes = N, T, x.shape[-1] // D, D, apart

    def blocks(apart: int, *arrays: Any) -> tuple[int, bool]:
        """Return how many blocks there are, and whether a lane takes a whole vector of pairs at once."""
        each = width(math.gcd(D // 2, apart), gain, cosine, sine, *arrays)
        lanes = min(D // 2 // each, WARP)  # of a head
        wide = each > 1 and WARP % lanes == 0
        return per_warp(-(-N * lanes // WARP) if wide else N), wide

    grid, wide = blocks(apart, rows, out)
    arrays = rows, gain, cosine, sine, out, inverse_rms
    launch("rotary.cu", "rotary", real, grid, *arrays, *sizes, wide, float(epsilon), size)

    def backward(d_out: Any):
        d_x = d_out if may_overwrite(d_out) else d_out.copy()
        d_rows, d_gain = dense_rows(d_x, real), None
        d_apart = d_rows.strides[0] // d_rows.itemsize
        if gain is not None:
            partial = xp.empty((chunks_of(N), D), np.float32)
            grid, arrays = (per_thread(D // 2), len(partial)), (rows, cosine, sine, inverse_rms, d_rows, partial)
            launch("rotary.cu", "rotary_backward_gain", real, grid, *arrays, *sizes, d_apart, size)
            d_gain = PendingSums(partial, real)
        grid, wide = blocks(math.gcd(apart, d_apart), rows, d_rows)
        arrays = rows, gain, cosine, sine, inverse_rms, d_rows
        launch("rotary.cu", "rotary_backward", real, grid, *arrays, *sizes, d_apart, wide, size)
        return d_rows.reshape(x.shape), d_gain

    return out, backward
