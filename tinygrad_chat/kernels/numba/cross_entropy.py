"""Cross-entropy, a row of logits at a time, with the gradient computed in the same pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import recording
from tinygrad_chat.kernels.numba.compilation import as_rows, compiled, contiguous
from tinygrad_chat.kernels.numba.exponential import exponential, larger
from tinygrad_chat.kernels.numpy.cross_entropy import cross_entropy as in_slices
from tinygrad_chat.ops.cross_entropy import IGNORED, check_loss_options, check_targets, counted_labels


def cross_entropy(
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    ignore_index: int = IGNORED,
    soft_cap: float | None = None,
    token_count: int | None = None,
    overwrite: bool = False,
):
    """`ops.cross_entropy`; the gradient for a d_out of 1 is computed in the forward, while each row is in the cache.

    With `weights`, which few losses have, NumPy's kernel runs.
    """
    options = {"ignore_index": ignore_index, "soft_cap": soft_cap, "token_count": token_count, "overwrite": overwrite}
    if weights is not None:
        return in_slices(logits, targets, weights=weights, **options)
    check_loss_options(targets, weights, token_count, soft_cap)
    check_targets(logits, targets)
    V = logits.shape[-1]
    labels = contiguous(targets.astype(np.int64, copy=False)).ravel()
    count = _count(labels, ignore_index, V)
    if count < 0:
        counted_labels(logits, targets, ignore_index)  # raises, saying what is wrong
    rows = as_rows(logits)
    bent = None if soft_cap is None else np.tanh(rows / soft_cap)
    if bent is not None:
        bent[labels == ignore_index] = 0
        rows = bent * soft_cap
    if not recording():
        d_rows = np.empty((1, V), rows.dtype)
    elif overwrite or bent is not None:
        d_rows = rows
    else:
        d_rows = np.empty_like(rows)
    loss = _loss(rows, labels, ignore_index, 1 / (token_count or max(count, 1)), d_rows is rows, d_rows)
    if bent is not None and recording():
        d_rows *= 1 - bent * bent

    def backward(d_out: np.ndarray):
        return (d_rows if d_out == 1 else d_rows * d_out).reshape(logits.shape), None

    return rows.dtype.type(loss), backward


@compiled
def _count(labels: Any, ignore_index: int, V: int) -> int:
    """Return how many labels are not ignored; -1 if one of those is not an index into a row of V."""
    count = 0
    for n in range(labels.size):
        if labels[n] != ignore_index:
            if not 0 <= labels[n] < V:
                return -1
            count += 1
    return count


@compiled
def _loss(rows: Any, labels: Any, ignore_index: int, weight: float, overwrite: bool, d_rows: Any) -> float:
    """Return the sum of the rows' losses times `weight`, and write the gradient of row n to row n of d_rows, modulo
    its length: for the loss alone one row is enough. With `overwrite`, d_rows is rows."""
    real = rows.dtype.type
    N, V = rows.shape
    loss = 0.0
    for n in range(N):
        row = d_rows[n % len(d_rows)]
        label = labels[n]
        if label == ignore_index:
            row[:] = real(0)
            continue
        if not overwrite:
            for c in range(V):
                row[c] = rows[n, c]
        largest = row[0]
        for c in range(V):
            largest = larger(largest, row[c])
        at_label = row[label] - largest
        total = real(0)
        for c in range(V):
            row[c] = exponential(row[c] - largest)
            total += row[c]
        loss += np.log(total) - at_label
        factor = real(weight) / total
        for c in range(V):
            row[c] *= factor
        row[label] -= real(weight)
    return loss * weight
