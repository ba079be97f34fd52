"""Cross-entropy in slices of rows that stay in the cache, with the gradient computed in the same pass."""

from __future__ import annotations

import numpy as np

from tinygrad_chat.autograd import recording
from tinygrad_chat.ops.cross_entropy import IGNORED, check_loss_options, counted_labels

SLICE = 1 << 16  # logits: with their intermediate results they fit in a core's L2


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
    """`ops.cross_entropy`; the gradient for a d_out of 1 is computed in the forward, while each row is in the cache."""
    check_loss_options(targets, weights, token_count, soft_cap)
    labels, counted = counted_labels(logits, targets, ignore_index)
    rows = logits.reshape(-1, logits.shape[-1])
    shares = counted * rows.dtype.type(1 / (token_count or max(counted.sum(), 1)))  # each row's weight in the result
    if weights is not None:
        shares *= weights.reshape(-1)
    losses = np.empty(len(rows), rows.dtype)
    d_rows = np.empty((0, 0), rows.dtype)
    if recording():
        d_rows = rows if overwrite and rows.flags.writeable else np.empty_like(rows)
    length = max(1, SLICE // rows.shape[1])
    for start in range(0, len(rows), length):
        part = slice(start, start + length)
        bent = None if soft_cap is None else np.tanh(rows[part] / soft_cap)
        capped = rows[part] if bent is None else bent * soft_cap
        e = capped - capped.max(axis=1, keepdims=True)
        each = np.arange(len(e)), labels[part]
        at_label = e[each]
        np.exp(e, out=e)
        total = e.sum(axis=1)
        losses[part] = np.where(counted[part], shares[part] * (np.log(total) - at_label), 0)
        if not recording():
            continue
        d_part = np.multiply(e, (shares[part] / total)[:, None], out=d_rows[part])
        d_part[each] -= shares[part]
        if bent is not None:
            d_part *= 1 - bent * bent
        d_part[~counted[part]] = 0

    def backward(d_out: np.ndarray):
        return (d_rows if d_out == 1 else d_rows * d_out).reshape(logits.shape), None

    return losses.sum(), backward
