"""Batches: random windows of the training tokens, and the validation tokens in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinygrad_chat.errors import DataError
from tinygrad_chat.option import expect

Batch = tuple[np.ndarray, np.ndarray]
"""tokens (B, T) and, for each, the token that follows it: targets (B, T)"""
WeightedBatch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""the same, and the weight of each target's loss: weights (B, T)"""


def random_batch(tokens: np.ndarray, *, batch_size: int, context: int, random: np.random.Generator) -> Batch:
    """Draw `batch_size` windows of `context` tokens, with starts drawn uniformly at random.

    Raises DataError if there are too few tokens for one window and its targets.
    """
    _expect_windows(batch_size, context)
    if len(tokens) <= context:
        raise DataError(f"random_batch: expected more than {context} tokens (the context), received {len(tokens)}")
    starts = random.integers(len(tokens) - context, size=batch_size)
    return _windows(tokens, starts, context)


def batches_in_order(tokens: np.ndarray, *, batch_size: int, context: int) -> Iterator[Batch]:
    """Yield windows of `context` tokens in order, the last one shorter: each token but the first is a target once."""
    _expect_windows(batch_size, context)
    predicted = len(tokens) - 1
    starts = np.arange(0, predicted - context + 1, context)
    for first in range(0, len(starts), batch_size):
        yield _windows(tokens, starts[first : first + batch_size], context)
    rest = predicted % context
    if rest:
        yield _windows(tokens, np.array([predicted - rest]), rest)


def expect_known(batch: Batch | WeightedBatch, vocabulary: int) -> None:
    """Raise DataError if a batch has a token outside the vocabulary: the data on disk are damaged."""
    largest = max(array.max(initial=0) for array in batch[:2])
    if largest >= vocabulary:
        raise DataError(
            f"data: expected tokens below {vocabulary}, received {largest}: the token cache is damaged; "
            "remove it with tgc data clear --yes, and the data is read again"
        )


def _expect_windows(batch_size: int, context: int) -> None:
    expect("batch_size", batch_size, minimum=1)
    expect("context", context, minimum=1)


def _windows(tokens: np.ndarray, starts: np.ndarray, length: int) -> Batch:
    windows = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return windows[:, :-1], windows[:, 1:]
