"""AdamW's update, and the gradient's norm for clipping, with no value that the host has to wait for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import MOST_CHUNKS, launch, per_thread, width


def adamw_update(
    data: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    scalars: Any,
    *,
    decayed: int,
    compute_weights: Any = None,
    grad_scale: Any = None,
) -> None:
    """`optim.adamw.adamw_update`, in one pass over memory; the scalars are read from device memory, too."""
    real = data.dtype if compute_weights is None else compute_weights.dtype
    arrays = data, gradient, mean, square, compute_weights, grad_scale, scalars
    each = width(data.size, data, gradient, mean, square, compute_weights)
    launch("adamw.cu", "adamw_update", real, per_thread(data.size, each), *arrays, data.size, decayed, each > 1)


def norm_and_scale(gradient: Any, limit: float | None) -> tuple[Any, Any]:
    """`optim.clipping.norm_and_scale`: both stay on the device, and the update reads the scale there."""
    xp, real, size = array_module(gradient), gradient.dtype, gradient.size
    each = width(size, gradient)
    partial = xp.empty(min(max(per_thread(size, each), 1), 4 * MOST_CHUNKS), np.float32)
    norm, scale = xp.empty((), np.float32), xp.empty((), np.float32)
    launch("adamw.cu", "square_sums", real, len(partial), gradient, partial, size, each > 1)
    most = math.inf if limit is None else float(limit)
    launch("adamw.cu", "norm_and_scale", real, 1, partial, norm, scale, len(partial), most)
    return norm, scale
