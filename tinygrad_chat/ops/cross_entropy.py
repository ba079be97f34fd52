"""Cross-entropy straight from logits: the loss of every language model here."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.option import expect

IGNORED = -1
SLICE = 1 << 20  # logits processed at a time where only the losses are needed


def check_targets(logits: Any, targets: Any) -> None:
    """Raise ShapeError unless there is an integer target for each row of logits, and the rows are not empty."""
    if logits.shape[-1] == 0:
        raise ShapeError(f"cross_entropy: expected at least 1 logit per row, received logits {logits.shape}")
    if targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy: logits {logits.shape} need targets {logits.shape[:-1]}, received {targets.shape}"
        )
    if targets.dtype.kind not in "iu":
        raise ShapeError(f"cross_entropy: expected whole numbers as targets, received {targets.dtype}")


def counted_labels(logits: Any, targets: Any, ignore_index: int) -> tuple[Any, Any]:
    """Return each row's label, 0 if it is ignored, and a mask of those that count. Raises ShapeError on a misfit."""
    check_targets(logits, targets)
    V = logits.shape[-1]
    labels = targets.reshape(-1)
    counted = labels != ignore_index
    labels = array_module(logits).where(counted, labels, 0)
    if labels.size and not 0 <= labels.min() <= labels.max() < V:
        raise ShapeError(
            f"cross_entropy: expected targets from 0 to {V - 1} or ignore_index {ignore_index}, "
            f"received {int(labels.min())} to {int(labels.max())}"
        )
    return labels, counted


def count_targets(targets: Any) -> int:
    """Return how many targets count; for host arrays only, as a device would make the host wait."""
    return int(np.count_nonzero(targets != IGNORED))


def check_loss_options(targets: Any, weights: Any, token_count: Any, soft_cap: float | None) -> None:
    """Raise ShapeError unless there is one weight per target and at least 1 token to divide the loss by, ConfigError
    unless the cap is positive; None passes, as does a count on a device, where nobody can look without waiting."""
    if weights is not None and weights.shape != targets.shape:
        raise ShapeError(f"cross_entropy: targets {targets.shape} need weights of that shape, received {weights.shape}")
    if token_count is not None and array_module(token_count) is np and token_count < 1:
        raise ShapeError(f"cross_entropy: expected a token_count of at least 1, received {token_count}")
    if soft_cap is not None:
        expect("cross_entropy: soft_cap", soft_cap, above=0)


@differentiable
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
    """The mean over tokens of -log softmax(logits)[target], in nats; 0 for a perfect prediction, log V for a uniform.

    logits (..., V), targets (...) integers -> scalar. Targets equal to `ignore_index` count in neither the sum nor the
    number of tokens; with none left the loss is 0. The gradient of an ignored row is 0 whatever its logits are
    (PyTorch: nan if one of them is nan). For a micro-batch, `token_count` is the number of targets that count in
    the whole batch: the sum is divided by it, so the losses of the micro-batches add up to its loss, however unevenly
    the targets are spread; on a device it may be an array of no axes, which the kernel reads. An array `weights` (...),
    which has no gradient, multiplies each token's loss; the sum is still divided by the number of tokens, so a weight
    of 1 changes nothing. `soft_cap` first maps each logit to soft_cap * tanh(logit / soft_cap) (Gemma 2,
    arXiv:2408.00118). With `overwrite` the logits are not read again: a kernel may overwrite them with their gradient.
    """
    check_loss_options(targets, weights, token_count, soft_cap)
    xp = array_module(logits)
    labels, counted = counted_labels(logits, targets, ignore_index)
    rows = logits.reshape(-1, logits.shape[-1])
    bent = None if soft_cap is None else xp.tanh(rows / soft_cap)
    if bent is not None:
        rows = bent * soft_cap
    each = xp.arange(rows.shape[0])
    shifted = rows - rows.max(axis=-1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=-1)
    losses = xp.where(counted, xp.log(total) - shifted[each, labels], 0)
    if weights is not None:
        losses = losses * weights.reshape(-1)
    count = token_count or xp.maximum(counted.sum(), 1).astype(logits.dtype)

    def backward(d_out):  # derivation: docs/derivations/cross_entropy.md
        d_rows = e / total[:, None]
        d_rows[each, labels] -= 1
        if bent is not None:
            d_rows *= 1 - bent * bent
        d_each = d_out / count if weights is None else (d_out / count) * weights.reshape(-1, 1)
        d_rows = xp.where(counted[:, None], d_rows * d_each, 0)
        return d_rows.reshape(logits.shape), None

    return losses.sum() / count, backward


def token_losses(logits: Any, targets: Any, *, soft_cap: float | None = None) -> Any:
    """The loss of each token, in nats, whose mean is `cross_entropy`. For evaluation, so there is no backward rule.

    Arrays logits (..., V), targets (...) integers -> (...). A target of -1 has loss 0. Rows are processed in slices, so
    little memory is needed beyond the logits.
    """
    xp, V = array_module(logits), logits.shape[-1]
    labels, counted = counted_labels(logits, targets, IGNORED)
    rows, step = logits.reshape(-1, V), max(1, SLICE // V)

    def losses(part: slice) -> Any:
        bent = rows[part] if soft_cap is None else xp.tanh(rows[part] / soft_cap) * soft_cap
        shifted = bent - bent.max(axis=-1, keepdims=True)
        at_label = shifted[xp.arange(len(shifted)), labels[part]]
        return xp.log(xp.exp(shifted).sum(axis=-1)) - at_label

    parts = [losses(slice(start, start + step)) for start in range(0, max(len(rows), 1), step)]
    return xp.where(counted, xp.concatenate(parts), 0).reshape(targets.shape)
