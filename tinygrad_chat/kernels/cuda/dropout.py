"""Dropout: the random numbers are computed where they are used, in the forward and the backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous, in_memory, launch, per_thread, width
from tinygrad_chat.ops.dropout import scale_of_kept


def dropout(x: Any, *, rate: float, seed: Any, offset: Any = 0):
    """`ops.dropout`, saving nothing. Seed and offset are read from device memory."""
    scale, xp = scale_of_kept(rate, seed, offset), array_module(x)
    place = in_memory(xp, seed, np.uint64), in_memory(xp, offset, np.uint64)

    def drop(whole: Any) -> Any:
        whole = contiguous(whole, x.dtype)
        out = xp.empty_like(whole)
        each = width(x.size, whole, out)
        given = whole, out, *place, x.size, float(rate), scale, each > 1
        launch("dropout.cu", "dropout", x.dtype, per_thread(x.size, each), *given)
        return out

    return drop(x), lambda d_out: (drop(d_out),)
