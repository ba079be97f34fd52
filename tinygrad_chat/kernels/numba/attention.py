"""Attention in blocks, with the work on a block's scores compiled: one pass over each row while it is in the cache.

With few queries, as in decoding and in very small models, BLAS would get too little work per call, and the whole is
compiled (`small_attention`). So it is where the processor has vectors wide enough for our own products and the width
of a head fills them (`tiled_attention`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.kernels.numba.compilation import compiled
from tinygrad_chat.kernels.numba.exponential import exponential, larger
from tinygrad_chat.kernels.numba.small_attention import SMALL, small_attention
from tinygrad_chat.kernels.numba.tiled_attention import fits, tiled_attention
from tinygrad_chat.kernels.numpy.attention import blocked_attention
from tinygrad_chat.ops.attention import check_attention


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    *,
    heads: int,
    causal: bool = True,
    window: int | None = None,
    document_starts: np.ndarray | None = None,
    length: Any = None,
):
    """`ops.attention`. Only devices have caches of which `length` is filled; here the reference takes care of it."""
    if length is not None:
        seen = {"causal": causal, "window": window, "document_starts": document_starts, "length": length}
        return ops.attention.reference(query, key, value, heads=heads, **seen)
    check_attention(query, key, value, heads, window, document_starts)
    (B, T), S, D = query.shape[:2], key.shape[1], query.shape[2] // heads
    small = T == 1 or B * heads * T * S <= SMALL
    if small or fits(query, heads):
        compiled_attention = small_attention if small else tiled_attention
        starts, reach = np.zeros((B, T), np.int64) if document_starts is None else document_starts, min(window or S, S)
        return compiled_attention(query, key, value, heads, key.shape[2] // D, causal, reach, starts)
    settings = heads, causal, window, document_starts
    return blocked_attention(query, key, value, *settings, weigh=_weigh, weigh_backward=_weigh_backward)


def _weigh(scores: np.ndarray, mask: np.ndarray, sums: np.ndarray) -> None:
    rows, keys = scores.shape[-2:]
    totals = np.empty((scores.size // (rows * keys), rows), scores.dtype)
    _exponentiate(scores.reshape(-1, rows, keys), mask, totals)
    sums[...] = totals.reshape(sums.shape)


def _weigh_backward(d_weights: np.ndarray, weights: np.ndarray, sums: np.ndarray) -> None:
    keys = weights.shape[-1]
    _subtract_and_multiply(d_weights.reshape(-1, keys), weights.reshape(-1, keys), sums.reshape(-1))


@compiled
def _exponentiate(scores: Any, mask: Any, totals: Any) -> None:
    real = scores.dtype.type
    M, T, S = scores.shape
    masked = mask.shape[1]
    for m in range(M):
        for t in range(T):
            row = scores[m, t]
            end = row[S - masked :]
            for s in range(masked):
                end[s] += mask[t, s]
            largest = row[0]
            for s in range(S):
                largest = larger(largest, row[s])
            total = real(0)
            for s in range(S):
                row[s] = exponential(row[s] - largest)
                total += row[s]
            totals[m, t] = total


@compiled
def _subtract_and_multiply(d_weights: Any, weights: Any, sums: Any) -> None:
    real = d_weights.dtype.type
    N, S = weights.shape
    for n in range(N):
        along = real(0)
        for s in range(S):
            along += d_weights[n, s] * weights[n, s]
        along /= sums[n]
        for s in range(S):
            d_weights[n, s] = (d_weights[n, s] - along) * weights[n, s]
