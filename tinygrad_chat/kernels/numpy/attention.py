"""Attention in blocks of queries: each uses only the keys that it may see, so the masked half is never computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import recording
from tinygrad_chat.ops.attention import check_attention, merge_heads, split_heads, visible_positions

BLOCK = 64  # queries: fewer make the products small, more waste work on the masked part of the diagonal
LONG = 512  # queries, beyond which blocks are twice as long
MAX_KEPT = 1 << 24  # weights, of the whole square: more are not kept, but recomputed in the backward rule


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
    settings = heads, causal, window, document_starts
    return blocked_attention(query, key, value, *settings, weigh=_weigh, weigh_backward=_weigh_backward)


def blocked_attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    heads: int,
    causal: bool,
    window: int | None,
    document_starts: np.ndarray | None,
    *,
    weigh: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
    weigh_backward: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
):
    """`ops.attention`, block by block, with two functions that process a block's scores (..., rows, keys). These are in
    C order, whatever the order of query and key, so reshaping them makes a view.

    `weigh(scores, mask, sums)` adds the mask to the last columns, replaces each row in place by exponentials, with its
    maximum subtracted first, and writes their sums (..., rows, 1): dividing `out` and `d_out` by these is cheaper than
    dividing the weights. `weigh_backward(d_weights, weights, sums)` turns d_weights in place into
    (d_weights - along) * weights, where along is the sum over s of d_weights * weights / sums. Computed as
    d_out . out / sums, along would be rounded differently from d_weights: where one key has all the weight, the result
    would not be 0 but an error that grows with d_weights.
    """
    check_attention(query, key, value, heads, window, document_starts)
    (B, T), S, D = query.shape[:2], key.shape[1], query.shape[2] // heads
    window = None if window is None else min(window, S)  # masks are that long
    G, scale = key.shape[2] // D, 1 / math.sqrt(D)
    q, k, v = (split_heads(x, G, D) for x in (query * scale, key, value))
    out, sums = np.empty(query.shape, query.dtype), np.empty((*q.shape[:-1], 1), query.dtype)
    o = split_heads(out, G, D)
    blocks = list(_blocks(T, S, causal, window, document_starts, query.dtype))
    keep = recording() and B * heads * T * S <= MAX_KEPT

    def weights_of(rows: slice, keys: slice, mask: np.ndarray) -> np.ndarray:
        scores = np.matmul(q[..., rows, :], k[..., keys, :].swapaxes(-1, -2), order="C")
        if document_starts is not None:
            _hide_other_documents(scores, document_starts[:, rows] - keys.start)
        weigh(scores, mask, sums[..., rows, :])
        return scores

    kept: list[np.ndarray | None] = []
    for rows, keys, mask in blocks:
        weights = weights_of(rows, keys, mask)
        np.matmul(weights, v[..., keys, :], out=o[..., rows, :])
        kept.append(weights if keep else None)
    o /= sums

    def backward(d_out: np.ndarray):
        d_o = split_heads(d_out, G, D) / sums
        d_query = np.empty(query.shape, query.dtype)
        d_q = split_heads(d_query, G, D)
        new = np.empty if T else np.zeros  # without a query nothing is written
        d_k, d_v = new((2, B, G, heads // G, S, D), query.dtype)  # contiguous: accumulated into often
        for (rows, keys, mask), saved in zip(reversed(blocks), reversed(kept), strict=True):
            weights = weights_of(rows, keys, mask) if saved is None else saved
            d_rows = d_o[..., rows, :]
            d_scores = np.matmul(d_rows, v[..., keys, :].swapaxes(-1, -2), order="C")
            weigh_backward(d_scores, weights, sums[..., rows, :])
            np.matmul(d_scores, k[..., keys, :], out=d_q[..., rows, :])
            for d_x, by_query, x in ((d_k, d_scores, q[..., rows, :]), (d_v, weights, d_rows)):
                by_key = by_query.swapaxes(-1, -2)
                if rows.stop == T:  # the first block to write: its keys are the last, or all
                    d_x[..., : keys.start, :] = 0
                    np.matmul(by_key, x, out=d_x[..., keys, :])
                else:
                    d_x[..., keys, :] += by_key @ x
        d_query *= scale
        return d_query, merge_heads(_sum_shared(d_k)), merge_heads(_sum_shared(d_v))

    return out, backward


def _weigh(scores: np.ndarray, mask: np.ndarray, sums: np.ndarray) -> None:
    if mask.shape[1]:
        scores[..., -mask.shape[1] :] += mask
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    np.matmul(scores, _ones(scores.shape[-1], scores.dtype), out=sums)  # many times faster than sum()


def _weigh_backward(d_weights: np.ndarray, weights: np.ndarray, sums: np.ndarray) -> None:
    d_weights -= np.vecdot(d_weights, weights)[..., None] / sums
    d_weights *= weights


def _hide_other_documents(scores: np.ndarray, starts: np.ndarray) -> None:
    """Set the scores (B, G, H / G, rows, keys) of keys before each query's start (B, rows) to minus infinity."""
    some = scores[..., : max(0, starts.max(initial=0))]  # all queries see the keys after these
    np.copyto(some, -math.inf, where=np.arange(some.shape[-1]) < starts[:, None, None, :, None])


def _blocks(
    T: int, S: int, causal: bool, window: int | None, document_starts: np.ndarray | None, dtype: Any
) -> Iterator[tuple[slice, slice, Any]]:
    """Yield blocks of queries, the keys that some of them may see, and the mask to add to the last columns of their
    scores, so that none sees a hidden key."""
    if not causal:
        yield slice(0, T), slice(0, S), _mask(T, 0 if window is None else S, False, window, dtype)
        return
    length = BLOCK if T <= LONG else 2 * BLOCK
    for start in range(0, T, length):
        stop = min(start + length, T)
        last = S - T + stop
        first = 0 if window is None else max(0, S - T + start + 1 - window)
        if document_starts is not None:
            first = max(first, int(document_starts[:, start:stop].min(initial=S - T + start)))
        hidden = 0 if stop - start == 1 else stop - start if window is None else stop - start + window - 1
        yield (
            slice(start, stop),
            slice(first, last),
            _mask(stop - start, hidden, True, window, dtype)[:, first - last :],
        )


@functools.lru_cache(maxsize=64)
def _mask(T: int, S: int, causal: bool, window: int | None, dtype: Any) -> np.ndarray:
    """Return 0 where a query may see a key and minus infinity elsewhere, (T, S)."""
    return np.where(visible_positions(np, T, S, causal=causal, window=window), 0, -math.inf).astype(dtype)


@functools.lru_cache(maxsize=64)
def _ones(size: int, dtype: Any) -> np.ndarray:
    return np.ones((size, 1), dtype)


def _sum_shared(d_x: np.ndarray) -> np.ndarray:
    """Sum the gradients (B, G, H / G, S, D) over the query heads that share a key/value head."""
    return d_x if d_x.shape[2] == 1 else d_x.sum(axis=2, keepdims=True)
