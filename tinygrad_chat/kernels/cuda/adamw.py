"""AdamW's update, with no value that the host has to wait for."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.kernels.cuda.launch import launch, per_thread, width


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
