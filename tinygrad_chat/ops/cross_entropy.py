"""Cross-entropy straight from logits: the loss of every language model here."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.option import expect

IGNORED = -1
SLICE = 1 << 20  # logits that are looked at together where only the losses are wanted


def check_targets(logits: Any, targets: Any) -> None:
    """Raise ShapeError unless there is an integer for each row of logits, and something in it to choose."""
    if logits.shape[-1] == 0:
        raise ShapeError(f"cross_entropy: expected at least 1 logit a row, received logits {logits.shape}")
    if targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy: logits {logits.shape} need targets {logits.shape[:-1]}, received {targets.shape}"
        )
    if targets.dtype.kind not in "iu":
        raise ShapeError(f"cross_entropy: expected whole numbers as targets, received {targets.dtype}")


def counted_labels(logits: Any, targets: Any, ignore_index: int) -> tuple[Any, Any]:
    """Return each row's label, 0 where it does not count, and which count. Raises ShapeError where they do not fit."""
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
    """Return how many targets count; for arrays of the host, as on a device it would mean to wait."""
    return int(np.count_nonzero(targets != IGNORED))


def check_loss_options(targets: Any, weights: Any, token_count: int | None, soft_cap: float | None) -> None:
    """Raise ShapeError for weights that are not one a target, or a number of tokens that no loss can be divided by,
    ConfigError for a cap that is none."""
    if weights is not None and weights.shape != targets.shape:
        raise ShapeError(f"cross_entropy: targets {targets.shape} need weights of that shape, received {weights.shape}")
    if token_count is not None and token_count < 1:
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
    token_count: int | None = None,
    overwrite: bool = False,
):
    """The mean over tokens of -log softmax(logits)[target], in nats; a perfect guess costs 0, an even one log V.

    logits (..., V), targets (...) integers -> scalar. Targets equal to `ignore_index` count in neither the sum nor the
    number of tokens; with none left the loss is 0, and where a row does not count its gradient is 0 whatever its logits
    are (PyTorch: nan beside a nan). For a part of a batch, `token_count` is how many targets count in
    the whole: the sum is divided by that, so that the losses of the parts add up to the whole one's, however unequally
    the targets lie. An array `weights` (...), which has no gradient, multiplies each token's loss; the sum is divided
    by the number of tokens still, so that a weight of 1 changes nothing. `soft_cap` bends each logit to
    soft_cap * tanh(logit / soft_cap) first (Gemma 2, arXiv:2408.00118).
    With `overwrite` nobody reads the logits again: a kernel may overwrite them with their gradient.
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
    """What `cross_entropy` is the mean of: each token's, in nats. For evaluation, so there is no backward rule.

    Arrays logits (..., V), targets (...) integers -> (...). A target of -1 counts 0. Some rows at a time, so that
    little memory is taken beside the logits.
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
