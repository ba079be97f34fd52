"""AdamW's update and gradient clipping, with no value that the host has to wait for."""

from __future__ import annotations

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
    grad_norm: Any = None,
) -> None:
    """`optim.adamw.adamw_update`, in one pass over memory; the scalars are read from device memory, too."""
    real = data.dtype if compute_weights is None else compute_weights.dtype
    arrays = data, gradient, mean, square, compute_weights, grad_norm, scalars
    each = width(data.size, data, gradient, mean, square, compute_weights)
    launch("adamw.cu", "adamw_update", real, per_thread(data.size, each), *arrays, data.size, decayed, each > 1)


def clip(gradient: Any, limit: float | None) -> Any:
    """`optim.clipping.clip`: the norm stays on the device."""
    xp, real, size = array_module(gradient), gradient.dtype, gradient.size
    partial, norm = xp.empty(min(max(per_thread(size), 1), 4 * MOST_CHUNKS), np.float32), xp.empty((), np.float32)
    launch("adamw.cu", "square_sums", real, len(partial), gradient, partial, size)
    launch("adamw.cu", "root_of_sum", real, 1, partial, norm, len(partial))
    if limit is not None:
        launch("adamw.cu", "clip", real, per_thread(size), gradient, norm, size, float(limit))
    return norm
