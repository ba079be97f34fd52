"""Attention in blocks of queries: each looks only at the keys that it may see, so the masked half is never computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygrad_chat.ops.attention import count_shared_heads, split_heads, visible_positions

BLOCK = 64  # queries: fewer make the products small, more compute a larger part of the diagonal in vain
LONGEST_KEPT = 512  # queries: beyond it the weights are computed again in the backward rule instead of kept


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    *,
    heads: int,
    causal: bool = True,
    window: int | None = None,
):
    """`ops.attention`. Weights stay exponentials: it is cheaper to divide `out` and `d_out` by their sums."""
    G = count_shared_heads(query, key, value, heads, window)
    (B, T), S, D = query.shape[:2], key.shape[1], query.shape[2] // heads
    scale = 1 / math.sqrt(D)
    q, k, v = (split_heads(x, G, D) for x in (query * scale, key, value))
    out, sums = np.empty(query.shape, query.dtype), np.empty((*q.shape[:-1], 1), query.dtype)
    o = split_heads(out, G, D)
    blocks = list(_blocks(T, S, causal, window, query.dtype))

    def scores(rows: slice, keys: slice, mask: np.ndarray | None) -> np.ndarray:
        products = q[..., rows, :] @ k[..., keys, :].swapaxes(-1, -2)
        if mask is not None:
            products[..., -mask.shape[1] :] += mask
        return products

    kept = []
    for block in blocks:
        rows, keys, _ = block
        weights = scores(*block)
        largest = weights.max(axis=-1, keepdims=True)
        _exponentiate(weights, largest)
        total = np.matmul(weights, _ones(weights.shape[-1], weights.dtype), out=sums[..., rows, :])  # faster than sum()
        mean = np.matmul(weights, v[..., keys, :], out=o[..., rows, :])
        mean /= total
        kept.append((largest, weights if T <= LONGEST_KEPT else None))

    def backward(d_out: np.ndarray):
        d_o = split_heads(d_out, G, D) / sums
        along = np.einsum("...td,...td->...t", d_o, o)[..., None]  # sum over s of d_weights * weights
        d_query = np.empty(query.shape, query.dtype)
        d_key, d_value = np.zeros((2, B, S, heads * D), query.dtype)  # one for each query head
        d_q, d_k, d_v = (split_heads(d_x, G, D) for d_x in (d_query, d_key, d_value))
        for block, (largest, weights) in zip(blocks, kept, strict=True):
            rows, keys, _ = block
            if weights is None:
                weights = scores(*block)
                _exponentiate(weights, largest)
            d_rows = d_o[..., rows, :]
            d_scores = d_rows @ v[..., keys, :].swapaxes(-1, -2)
            d_scores -= along[..., rows, :]
            d_scores *= weights
            np.matmul(d_scores, k[..., keys, :], out=d_q[..., rows, :])
            d_k[..., keys, :] += d_scores.swapaxes(-1, -2) @ q[..., rows, :]
            d_v[..., keys, :] += weights.swapaxes(-1, -2) @ d_rows
        d_query *= scale
        return d_query, _sum_shared(d_key, G, heads), _sum_shared(d_value, G, heads)

    return out, backward


def _blocks(T: int, S: int, causal: bool, window: int | None, dtype: Any) -> Iterator[tuple[slice, slice, Any]]:
    """Yield blocks of queries, the keys that some of them may see, and what to add to the last columns of their scores,
    so that none sees a key that it may not (None: nothing)."""
    if not causal:
        yield slice(0, T), slice(0, S), None if window is None else _mask(T, S, False, window, dtype)
        return
    for start in range(0, T, BLOCK):
        stop = min(start + BLOCK, T)
        last = S - T + stop
        first = 0 if window is None else max(0, S - T + start + 1 - window)
        mask = None
        if stop - start > 1:
            reach = stop - start if window is None else stop - start + window - 1
            mask = _mask(stop - start, reach, True, window, dtype)[:, -(last - first) :]
        yield slice(start, stop), slice(first, last), mask


@functools.lru_cache(maxsize=64)
def _mask(T: int, S: int, causal: bool, window: int | None, dtype: Any) -> np.ndarray:
    """Return 0 where a query may look and minus infinity elsewhere, (T, S)."""
    return np.where(visible_positions(np, T, S, causal=causal, window=window), 0, -math.inf).astype(dtype)


def _exponentiate(scores: np.ndarray, largest: np.ndarray) -> None:
    scores -= largest
    np.exp(scores, out=scores)


@functools.lru_cache(maxsize=64)
def _ones(size: int, dtype: Any) -> np.ndarray:
    return np.ones((size, 1), dtype)


def _sum_shared(d_x: np.ndarray, G: int, heads: int) -> np.ndarray:
    """Add up the gradients (B, S, H D) that the query heads give to the key/value head they share."""
    if heads == G:
        return d_x
    B, S, width = d_x.shape
    return d_x.reshape(B, S, G, heads // G, -1).sum(axis=3).reshape(B, S, width * G // heads)
