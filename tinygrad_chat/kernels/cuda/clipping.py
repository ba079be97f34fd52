"""The gradient's norm, and the factor that clips it, with no value that the host has to wait for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import MAX_CHUNKS, launch, per_thread, width


def norm_and_scale(gradient: Any, limit: float | None) -> tuple[Any, Any]:
    """`optim.clipping.norm_and_scale`: both stay on the device, and an update reads the scale there."""
    xp, real, size = array_module(gradient), gradient.dtype, gradient.size
    each = width(size, gradient)
    partial = xp.empty(min(max(per_thread(size, each), 1), 4 * MAX_CHUNKS), np.float32)
    norm, scale = xp.empty((), np.float32), xp.empty((), np.float32)
    launch("clipping.cu", "square_sums", real, len(partial), gradient, partial, size, each > 1)
    most = math.inf if limit is None else float(limit)
    launch("clipping.cu", "norm_and_scale", real, 1, partial, norm, scale, len(partial), most)
    return norm, scale
