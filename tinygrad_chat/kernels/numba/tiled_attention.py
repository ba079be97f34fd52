"""Attention in blocks of queries, with our own matrix products: a block's scores stay in the cache from the first
product to the last, and what none of 16 queries may see is not computed.

Derivation: docs/derivations/attention.md. The weights of a block are kept as exponentials, not divided by their sums:
dividing `out` and `d_out` is cheaper.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_chat.autograd import recording
from tinygrad_chat.kernels.numba.compilation import compiled, contiguous, inlined
from tinygrad_chat.kernels.numba.exponential import exponential, larger
from tinygrad_chat.kernels.numba.small_attention import in_a_line, seen_by
from tinygrad_chat.kernels.numba.threads import in_threads, threads_for
from tinygrad_chat.kernels.numba.tiles import HAS_WIDE_VECTORS, LANES, TALL, multiply, transpose
from tinygrad_chat.kernels.numpy.attention import MAX_KEPT

BLOCK = 64  # queries whose scores are in the cache together
SPREAD = 16  # padding columns beyond the keys, without which the transposed rows would share sets of the cache


def fits(query: np.ndarray, heads: int) -> bool:
    """Return whether tiles suit the processor, the type and the width of the heads."""
    return HAS_WIDE_VECTORS and query.dtype == np.float32 and query.shape[2] // heads % LANES == 0


def tiled_attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    heads: int,
    G: int,
    causal: bool,
    reach: int,
    document_starts: np.ndarray,
):
    """`ops.attention` of float32 with G key/value heads, where a query sees at most `reach` positions."""
    (B, T), S, D = query.shape[:2], key.shape[1], query.shape[2] // heads
    places = _places(T, S, causal, reach)
    keep = recording() and B * heads * T * S <= MAX_KEPT
    out, sums = np.empty(query.shape, query.dtype), np.empty((B, heads, T), query.dtype)
    weights = np.empty((B, heads, places[-1] if keep else 0), query.dtype)
    sizes, settings = (heads, G, S, D), (causal, reach, 1 / math.sqrt(D))
    read = contiguous(query), *in_a_line(key), *in_a_line(value), contiguous(document_starts.astype(np.int64)), places
    threads = threads_for(B * heads * T * S)
    in_threads(
        lambda part, parts: _attend(*read, sizes, settings, weights, sums, out, part, parts), min(threads, B * heads)
    )

    def backward(d_out: np.ndarray):
        d_query, d_key, d_value = (np.empty(x.shape, x.dtype) for x in (query, key, value))
        given = *read, sizes, settings, weights, sums, contiguous(d_out), d_query, d_key, d_value
        in_threads(lambda part, parts: _attend_backward(*given, part, parts), min(threads, B * G))
        return d_query, d_key, d_value

    return out, backward


def _places(T: int, S: int, causal: bool, reach: int) -> np.ndarray:
    """Return where the weights of each block begin among those of a head, and where the last block ends."""
    blocks = [(start, min(start + BLOCK, T)) for start in range(0, T, BLOCK)]
    sizes = [upward(stop - start) * _columns(start, stop, T, S, causal, reach)[1] for start, stop in blocks]
    return np.cumsum([0, *sizes])


@inlined
def upward(count: int) -> int:
    """Round up to a multiple of 16, the size that tiles need."""
    return (count + TALL - 1) // TALL * TALL


@inlined
def _columns(start: int, stop: int, T: int, S: int, causal: bool, reach: int) -> tuple[int, int]:
    """Return the first key for queries `start` to `stop`, a multiple of 16, and the number of columns of the scores."""
    first = max(0, S - T + start + 1 - reach) // LANES * LANES
    end = S - T + stop if causal else S
    return first, upward(end - first)


@inlined
def _head_of(line: Any, step: int, b: int, g: int, sizes: tuple[int, int, int, int]) -> Any:
    """View a key/value head's keys or values of one sequence, (S, D)."""
    _, G, S, D = sizes
    return line[b * step : b * step + S * G * D].reshape(S, G * D)[:, g * D : (g + 1) * D]


@compiled
def _attend(
    query: Any,
    key: Any,
    key_step: int,
    value: Any,
    value_step: int,
    starts: Any,
    places: Any,
    sizes: tuple[int, int, int, int],
    settings: tuple[bool, int, float],
    weights: Any,
    sums: Any,
    out: Any,
    part: int,
    parts: int,
) -> None:
    """Compute a part of the heads. `weights` (B, H, places[-1]) has no columns if they are not to be kept."""
    (B, T), (H, G, S, D), (causal, reach, scale) = query.shape[:2], sizes, settings
    rows, kept = upward(min(T, BLOCK)), weights.shape[2] > 0
    q, means = np.zeros((rows, D), np.float32), np.empty((rows, D), np.float32)
    scratch = np.empty(0 if kept else rows * upward(S), np.float32)
    transposed, of = np.zeros((D, upward(S) + SPREAD), np.float32), -1
    for task in range(part * B * H // parts, (part + 1) * B * H // parts):
        b, h = task // H, task % H
        g = h // (H // G)
        values = _head_of(value, value_step, b, g, sizes)
        if b * G + g != of:
            of = b * G + g
            transpose(_head_of(key, key_step, b, g, sizes), transposed)
        for block in range(len(places) - 1):
            start = block * BLOCK
            stop = min(start + BLOCK, T)
            first, width = _columns(start, stop, T, S, causal, reach)
            place = weights[b, h, places[block] :] if kept else scratch
            scores = place[: upward(stop - start) * width].reshape(-1, width)
            totals = sums[b, h, start:stop]
            _read_scaled(query[b, start:stop], h, scale, q)
            for row in range(0, stop - start, TALL):
                low, high = _weigh(q, transposed, starts[b], start, row, T, S, causal, reach, first, scores, totals)
                seen = scores[row : row + TALL, low - first : high - first]
                multiply(seen, values[low:high], means[row : row + TALL], False)
            for t in range(stop - start):
                share, mean, into = np.float32(1) / totals[t], means[t], out[b, start + t, h * D : (h + 1) * D]
                for d in range(D):
                    into[d] = mean[d] * share


@inlined
def _read_scaled(rows: Any, h: int, scale: float, out: Any) -> None:
    """Copy one head of rows (T, H D), scaled, to `out` (T or more, D)."""
    D, factor = out.shape[1], np.float32(scale)
    for t in range(len(rows)):
        row, into = rows[t, h * D : (h + 1) * D], out[t]
        for d in range(D):
            into[d] = row[d] * factor


@inlined
def _weigh(
    q: Any,
    transposed: Any,
    starts: Any,
    start: int,
    row: int,
    T: int,
    S: int,
    causal: bool,
    reach: int,
    first: int,
    scores: Any,
    totals: Any,
) -> tuple[int, int]:
    """Fill 16 rows of a block's scores with their exponentials, 0 for hidden keys; return the range of keys that any of
    the queries sees. `totals` receives the sums, for the queries that exist."""
    stop = min(row + TALL, len(totals))
    low, high = S, 0
    for t in range(row, stop):
        seen, hidden = seen_by(start + t, T, S, causal, reach, starts[start + t])
        low, high = min(low, seen), max(high, hidden)
    low = low // LANES * LANES
    end = low + upward(high - low) - first
    multiply(q[row : row + TALL], transposed[:, low : first + end], scores[row : row + TALL, low - first : end], False)
    for t in range(row, stop):
        seen, hidden = seen_by(start + t, T, S, causal, reach, starts[start + t])
        line, largest, total = scores[t], np.float32(-np.inf), np.float32(0)
        line[: seen - first] = -np.inf
        line[hidden - first :] = -np.inf
        for s in range(end):
            largest = larger(largest, line[s])
        for s in range(end):
            line[s] = exponential(line[s] - largest)
            total += line[s]
        line[end:] = 0
        totals[t] = total
    scores[stop : row + TALL] = 0
    return low, high


@compiled
def _attend_backward(
    query: Any,
    key: Any,
    key_step: int,
    value: Any,
    value_step: int,
    starts: Any,
    places: Any,
    sizes: tuple[int, int, int, int],
    settings: tuple[bool, int, float],
    weights: Any,
    sums: Any,
    d_out: Any,
    d_query: Any,
    d_key: Any,
    d_value: Any,
    part: int,
    parts: int,
) -> None:
    """Compute the gradients for a part of the key/value heads, over all query heads that share each."""
    (B, T), (H, G, S, D), (causal, reach, scale) = query.shape[:2], sizes, settings
    rows, columns, kept, factor = upward(min(T, BLOCK)), upward(S), weights.shape[2] > 0, np.float32(scale)
    q, d_q, d_means = np.zeros((3, rows, D), np.float32)
    totals = np.empty(rows, np.float32)
    scratch, d_scratch = np.empty(0 if kept else rows * columns, np.float32), np.empty(rows * columns, np.float32)
    keys_transposed, values_transposed = np.zeros((2, D, columns + SPREAD), np.float32)
    d_keys, d_values = np.empty((2, columns, D), np.float32)
    for task in range(part * B * G // parts, (part + 1) * B * G // parts):
        b, g = task // G, task % G
        keys = _head_of(key, key_step, b, g, sizes)
        transpose(_head_of(value, value_step, b, g, sizes), values_transposed)
        if not kept:
            transpose(keys, keys_transposed)
        d_keys[:], d_values[:] = 0, 0
        for h in range(g * (H // G), (g + 1) * (H // G)):
            for block in range(len(places) - 1):
                start = block * BLOCK
                count = min(BLOCK, T - start)
                first, width = _columns(start, start + count, T, S, causal, reach)
                place = weights[b, h, places[block] :] if kept else scratch
                scores = place[: upward(count) * width].reshape(-1, width)
                d_scores = d_scratch[: upward(count) * width].reshape(-1, width)
                _read_scaled(query[b, start : start + count], h, scale, q)
                _read_means(d_out[b], sums[b, h], start, count, h, d_means)
                for row in range(0, count, TALL):
                    if not kept:
                        of_block = totals[:count]
                        _weigh(q, keys_transposed, starts[b], start, row, T, S, causal, reach, first, scores, of_block)
                    stop = min(row + TALL, count)
                    high = (S - T + start + stop if causal else S) - first
                    end = upward(high)
                    d_rows = d_scores[row : row + TALL, :end]
                    multiply(d_means[row : row + TALL], values_transposed[:, first : first + end], d_rows, False)
                    for t in range(row, stop):
                        weight, d_score, along = scores[t], d_scores[t], np.float32(0)
                        for s in range(end):
                            along += d_score[s] * weight[s]
                        along /= sums[b, h, start + t]
                        for s in range(end):
                            d_score[s] = (d_score[s] - along) * weight[s]
                        d_score[end:] = 0
                    multiply(d_rows[:, :high], keys[first : first + high], d_q[row : row + TALL], False)
                for t in range(count):
                    d_row, into = d_q[t], d_query[b, start + t, h * D : (h + 1) * D]
                    for d in range(D):
                        into[d] = d_row[d] * factor
                for s in range(0, width, TALL):
                    row = max(0, first + s - (S - T) - start) if causal else 0  # the first query that sees one of these
                    if row < count:
                        at = first + s
                        multiply(d_scores[row:count, s : s + TALL].T, q[row:count], d_keys[at : at + TALL], True)
                        multiply(scores[row:count, s : s + TALL].T, d_means[row:count], d_values[at : at + TALL], True)
        for s in range(S):
            d_key[b, s, g * D : (g + 1) * D] = d_keys[s]
            d_value[b, s, g * D : (g + 1) * D] = d_values[s]


@inlined
def _read_means(d_out: Any, sums: Any, start: int, count: int, h: int, d_means: Any) -> None:
    """Copy a block's gradients of one head's output, divided by the sums of the weights."""
    D = d_means.shape[1]
    for t in range(count):
        share = np.float32(1) / sums[start + t]
        d_mean, into = d_out[start + t, h * D : (h + 1) * D], d_means[t]
        for d in range(D):
            into[d] = d_mean[d] * share
