"""Dropout: the random numbers are computed where they are used, in the forward and the backward pass."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous, launch, per_thread
from tinygrad_chat.ops.dropout import scale_of_kept


def dropout(x: Any, *, rate: float, seed: int, offset: int = 0):
    """`ops.dropout`, saving nothing."""
    scale = scale_of_kept(rate, seed, offset)

    def drop(whole: Any) -> Any:
        whole = contiguous(whole, x.dtype)
        out = array_module(x).empty_like(whole)
        settings = x.size, float(rate), scale, seed, offset
        launch("dropout.cu", "dropout", x.dtype, per_thread(x.size), whole, out, *settings)
        return out

    return drop(x), lambda d_out: (drop(d_out),)
