"""Cross-entropy. The gradient is computed together with the loss, while a row of logits is in registers, and may
overwrite the logits. For rows too long for that, one number per row is saved, and the backward rule reads them again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import recording
from tinygrad_chat.backend import array_module, narrowed
from tinygrad_chat.kernels.cuda.launch import MAX_CHUNKS, WARP, contiguous, in_memory, launch, per_thread, width
from tinygrad_chat.ops.cross_entropy import IGNORED, check_loss_options, check_targets

FILE = "cross_entropy.cu"
MAX_THREADS, PIECES = 512, 13  # of a block, and of what a thread holds, as in the file


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    weights: Any = None,
    ignore_index: int = IGNORED,
    soft_cap: float | None = None,
    token_count: Any = None,
    overwrite: bool = False,
):
    """`ops.cross_entropy`, in float32. A target outside the vocabulary makes it NaN: a check would block the host."""
    check_loss_options(targets, weights, token_count, soft_cap)
    check_targets(logits, targets)
    xp, real, V = array_module(logits), logits.dtype, logits.shape[-1]
    rows, labels = contiguous(logits, real).reshape(-1, V), contiguous(narrowed(targets), np.int32).ravel()
    if weights is not None:
        weights = contiguous(xp.asarray(weights), np.float32)
    N, cap = len(rows), float(soft_cap or 0)
    ignored = int(narrowed(np.array(ignore_index)))
    each, options = width(V, rows), (V, ignored, cap)
    losses, loss, factor = (xp.empty(shape, np.float32) for shape in (N, (), ()))
    count = None if token_count is None else in_memory(xp, token_count, np.int64)
    launch(FILE, "row_factor", real, 1, labels, factor, count, N, ignored)
    if recording() and PIECES * MAX_THREADS * each >= V:
        d_rows = rows if overwrite else xp.empty_like(rows)
        threads = min(WARP * -(-V // (WARP * each)), MAX_THREADS)
        arrays = rows, labels, weights, factor, losses, d_rows
        launch(FILE, "cross_entropy_at_once", real, N, *arrays, *options, each > 1, threads=threads)

        def gradient(d_out: Any) -> Any:
            scaled = d_rows if overwrite else xp.empty_like(d_rows)
            each = width(scaled.size, d_rows, scaled)
            blocks = min(per_thread(scaled.size, each), 4 * MAX_CHUNKS)
            launch(FILE, "scale_gradient", real, blocks, d_rows, d_out, scaled, scaled.size, each > 1)
            return scaled

    else:
        log_sums = xp.empty(N, np.float32)
        launch(FILE, "cross_entropy", real, N, rows, labels, log_sums, losses, *options, each > 1)

        def gradient(d_out: Any) -> Any:
            d_rows = rows if overwrite else xp.empty_like(rows)
            arrays = rows, labels, weights, log_sums, factor, d_out, d_rows
            launch(FILE, "cross_entropy_backward", real, N, *arrays, *options, each > 1)
            return d_rows

    launch(FILE, "mean_loss", real, 1, losses, weights, factor, loss, N)
    return loss, lambda d_out: (gradient(contiguous(d_out, np.float32)).reshape(logits.shape), None)
