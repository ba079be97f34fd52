"""Attention compiled as a whole, sequence by sequence: for decoding and very small models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange
from numpy.lib.stride_tricks import as_strided

from tinygrad_chat.backend.host_threads import product_threads
from tinygrad_chat.kernels.numba.compilation import compiled, compiled_for_threads, contiguous, inlined
from tinygrad_chat.kernels.numba.exponential import exponential, larger
from tinygrad_chat.kernels.numba.prefetching import prefetch
from tinygrad_chat.kernels.numba.products import WORTH_THREADS, sharing

AHEAD = 16  # positions by which keys and values are prefetched before they are read
LINE = 16  # float32 in a cache line
SMALL = 1 << 12  # weights: for fewer, calling BLAS costs more than its products gain


def small_attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    heads: int,
    G: int,
    causal: bool,
    reach: int,
    document_starts: np.ndarray,
):
    """`ops.attention` with G key/value heads, where a query sees at most `reach` positions."""
    (B, T, C), S = query.shape, key.shape[1]
    weights, out = np.empty((B, T, heads, S), query.dtype), np.empty(query.shape, query.dtype)
    settings, starts = (G, 1 / math.sqrt(C // heads), causal, reach), contiguous(document_starts.astype(np.int64))
    parts = min(B, product_threads()) if key.size >= WORTH_THREADS else 1
    given = contiguous(query), *in_a_line(key), *in_a_line(value), *settings, starts, weights, out
    if parts == 1:
        _attend_part(*given, 0, 1)
    else:
        with sharing:
            _attend_in_threads(*given, parts)

    def backward(d_out: np.ndarray):
        d_query, d_key, d_value = (np.zeros(x.shape, x.dtype) for x in (query, key, value))
        for b in range(B):
            sequence, d_mean = (contiguous(x[b]) for x in (query, key, value)), contiguous(d_out[b])
            _attend_backward(*sequence, *settings, starts[b], weights[b], d_mean, d_query[b], d_key[b], d_value[b])
        return d_query, d_key, d_value

    return out, backward


def in_a_line(x: np.ndarray) -> tuple[np.ndarray, int]:
    """Return x (B, S, W) as a flat array, and the distance from one sequence to the next.

    Rows of a cache, which has room for more tokens after each, are not copied.
    """
    B, S, W = x.shape
    if x.flags.carray or not x[:1].flags.carray:
        return contiguous(x).reshape(-1), S * W
    step = x.strides[0] // x.itemsize
    return as_strided(x, ((B - 1) * step + S * W,), (x.itemsize,)), step


@inlined
def _attend_part(
    query: Any,
    key: Any,
    key_step: int,
    value: Any,
    value_step: int,
    G: int,
    scale: float,
    causal: bool,
    reach: int,
    starts: Any,
    weights: Any,
    out: Any,
    part: int,
    parts: int,
) -> None:
    """Compute a part of the sequences."""
    B, _, H, S = weights.shape
    W = query.shape[2] // H * G
    for b in range(part * B // parts, (part + 1) * B // parts):
        keys = key[b * key_step : b * key_step + S * W].reshape(S, W)
        values = value[b * value_step : b * value_step + S * W].reshape(S, W)
        _attend(query[b], keys, values, G, scale, causal, reach, starts[b], weights[b], out[b])


@compiled_for_threads
def _attend_in_threads(
    query: Any,
    key: Any,
    key_step: int,
    value: Any,
    value_step: int,
    G: int,
    scale: float,
    causal: bool,
    reach: int,
    starts: Any,
    weights: Any,
    out: Any,
    parts: int,
) -> None:
    sequences = query, key, key_step, value, value_step
    for part in prange(parts):
        _attend_part(*sequences, G, scale, causal, reach, starts, weights, out, part, parts)


@inlined
def _attend(
    query: Any,
    key: Any,
    value: Any,
    G: int,
    scale: float,
    causal: bool,
    reach: int,
    starts: Any,
    weights: Any,
    out: Any,
) -> None:
    """Compute the weights (T, H, S), written for visible keys only, and the means of the values.

    Keys and values are read in memory order: in decoding, reading them is most of the work.
    """
    real = query.dtype.type
    T, H, S = weights.shape
    D = query.shape[1] // H
    queries, means = query.reshape(T, H, D), out.reshape(T, H, D)
    keys, values = key.reshape(S, G, D), value.reshape(S, G, D)
    factor, shared = real(scale), H // G
    for t in range(T):
        seen, hidden = seen_by(t, T, S, causal, reach, starts[t])
        for s in range(seen, hidden):
            _prefetch_row(key, s + AHEAD)
            for g in range(G):
                k = keys[s, g]
                for h in range(g * shared, (g + 1) * shared):
                    q, product = queries[t, h], real(0)
                    for d in range(D):
                        product += q[d] * k[d]
                    weights[t, h, s] = product
        for h in range(H):
            row = weights[t, h, seen:hidden]
            largest = real(-np.inf)
            for s in range(row.size):
                largest = larger(largest, row[s])
            total = real(0)
            for s in range(row.size):
                row[s] = exponential((row[s] - largest) * factor)
                total += row[s]
            share = real(1) / total
            for s in range(row.size):
                row[s] *= share
        means[t] = real(0)
        for s in range(seen, hidden):
            _prefetch_row(value, s + AHEAD)
            for g in range(G):
                v = values[s, g]
                for h in range(g * shared, (g + 1) * shared):
                    mean, weight = means[t, h], weights[t, h, s]
                    for d in range(D):
                        mean[d] += weight * v[d]


@inlined
def _prefetch_row(matrix: Any, row: int) -> None:
    """Prefetch a row (W) of a contiguous matrix (S, W), or the memory past its end."""
    W = matrix.shape[1]
    for column in range(0, W, LINE):
        prefetch(matrix, row * W + column)


@compiled
def _attend_backward(
    query: Any,
    key: Any,
    value: Any,
    G: int,
    scale: float,
    causal: bool,
    reach: int,
    starts: Any,
    weights: Any,
    d_out: Any,
    d_query: Any,
    d_key: Any,
    d_value: Any,
) -> None:
    """Add the gradients to d_query, d_key and d_value."""
    real = query.dtype.type
    T, H, S = weights.shape
    D = query.shape[1] // H
    queries, d_queries, d_means = query.reshape(T, H, D), d_query.reshape(T, H, D), d_out.reshape(T, H, D)
    keys, d_keys = key.reshape(S, G, D), d_key.reshape(S, G, D)
    values, d_values = value.reshape(S, G, D), d_value.reshape(S, G, D)
    factor = real(scale)
    d_weights = np.empty(S, query.dtype)
    for t in range(T):
        seen, hidden = seen_by(t, T, S, causal, reach, starts[t])
        for h in range(H):
            g = h // (H // G)
            q, d_q, d_mean = queries[t, h], d_queries[t, h], d_means[t, h]
            along = real(0)
            for s in range(seen, hidden):
                v, d_v = values[s, g], d_values[s, g]
                weight, product = weights[t, h, s], real(0)
                for d in range(D):
                    product += d_mean[d] * v[d]
                    d_v[d] += weight * d_mean[d]
                d_weights[s] = product
                along += weight * product
            for s in range(seen, hidden):
                k, d_k = keys[s, g], d_keys[s, g]
                d_product = (d_weights[s] - along) * weights[t, h, s] * factor
                for d in range(D):
                    d_q[d] += d_product * k[d]
                    d_k[d] += d_product * q[d]


@inlined
def seen_by(t: int, T: int, S: int, causal: bool, reach: int, start: int) -> tuple[int, int]:
    """Return the first position that query t sees, and the first after it that it does not."""
    position = S - T + t
    return max(start, position + 1 - reach), position + 1 if causal else S
