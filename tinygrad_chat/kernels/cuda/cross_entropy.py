"""Cross-entropy: one number per row is saved, and the gradient may overwrite the logits in the backward rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous, launch, width
from tinygrad_chat.ops.cross_entropy import IGNORED, check_loss_options, check_targets


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    weights: Any = None,
    ignore_index: int = IGNORED,
    soft_cap: float | None = None,
    token_count: int | None = None,
    overwrite: bool = False,
):
    """`ops.cross_entropy`, in float32. A target outside the vocabulary makes it NaN: a check would block the host."""
    check_loss_options(targets, weights, token_count, soft_cap)
    check_targets(logits, targets)
    xp, real, V = array_module(logits), logits.dtype, logits.shape[-1]
    rows, labels = contiguous(logits, real).reshape(-1, V), contiguous(targets, np.int64).ravel()
    if weights is not None:
        weights = contiguous(xp.asarray(weights), np.float32)
    N, cap = len(rows), float(soft_cap or 0)
    wide = width(V, rows) > 1
    log_sums, losses, loss, factor = (xp.empty(shape, np.float32) for shape in (N, N, (), ()))
    launch("cross_entropy.cu", "cross_entropy", real, N, rows, labels, log_sums, losses, V, ignore_index, cap, wide)
    count = token_count or 0
    launch("cross_entropy.cu", "mean_loss", real, 1, losses, labels, weights, loss, factor, N, ignore_index, count)

    def backward(d_out: Any):
        d_rows = rows if overwrite else xp.empty_like(rows)
        arrays = rows, labels, weights, log_sums, factor, contiguous(d_out, np.float32), d_rows
        wide = width(V, rows, d_rows) > 1
        launch("cross_entropy.cu", "cross_entropy_backward", real, N, *arrays, V, ignore_index, cap, wide)
        return d_rows.reshape(logits.shape), None

    return loss, backward
