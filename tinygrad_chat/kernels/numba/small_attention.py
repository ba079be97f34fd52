"""Small attention, compiled as a whole: a token that is decoded, a very small model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_chat.kernels.numba.compilation import compiled
from tinygrad_chat.kernels.numba.exponential import exponential, larger

SMALL = 1 << 12  # weights: for fewer, to call BLAS costs more than its products gain


def small_attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, heads: int, G: int, causal: bool, reach: int
):
    """`ops.attention` with G key/value heads, where a query sees at most `reach` positions."""
    (B, T, C), S = query.shape, key.shape[1]
    q, k, v = (np.ascontiguousarray(x) for x in (query, key, value))
    weights, out = np.empty((B, T, heads, S), q.dtype), np.empty(q.shape, q.dtype)
    scale = 1 / math.sqrt(C // heads)
    _attend(q, k, v, G, scale, causal, reach, weights, out)

    def backward(d_out: np.ndarray):
        d_q, d_k, d_v = np.zeros(q.shape, q.dtype), *np.zeros((2, *k.shape), q.dtype)
        _attend_backward(q, k, v, G, scale, causal, reach, weights, np.ascontiguousarray(d_out), d_q, d_k, d_v)
        return d_q, d_k, d_v

    return out, backward


@compiled
def _attend(
    query: Any, key: Any, value: Any, G: int, scale: float, causal: bool, reach: int, weights: Any, out: Any
) -> None:
    """Compute the weights (B, T, H, S), of which only those that are seen are written, and the means of the values."""
    real = query.dtype.type
    B, T, H, S = weights.shape
    D = query.shape[2] // H
    queries, means = query.reshape(B, T, H, D), out.reshape(B, T, H, D)
    keys, values = key.reshape(B, S, G, D), value.reshape(B, S, G, D)
    factor = real(scale)
    for b in range(B):
        for t in range(T):
            seen, hidden = _seen(t, T, S, causal, reach)
            for h in range(H):
                g = h // (H // G)
                q, mean, row = queries[b, t, h], means[b, t, h], weights[b, t, h, seen:hidden]
                largest = real(-np.inf)
                for s in range(row.size):
                    k = keys[b, seen + s, g]
                    product = real(0)
                    for d in range(D):
                        product += q[d] * k[d]
                    row[s] = product
                    largest = larger(largest, product)
                total = real(0)
                for s in range(row.size):
                    row[s] = exponential((row[s] - largest) * factor)
                    total += row[s]
                share = real(1) / total
                mean[:] = real(0)
                for s in range(row.size):
                    v = values[b, seen + s, g]
                    weight = row[s] * share
                    row[s] = weight
                    for d in range(D):
                        mean[d] += weight * v[d]


@compiled
def _attend_backward(
    query: Any,
    key: Any,
    value: Any,
    G: int,
    scale: float,
    causal: bool,
    reach: int,
    weights: Any,
    d_out: Any,
    d_query: Any,
    d_key: Any,
    d_value: Any,
) -> None:
    """Add the gradients to d_query, d_key and d_value."""
    real = query.dtype.type
    B, T, H, S = weights.shape
    D = query.shape[2] // H
    queries, d_queries, d_means = query.reshape(B, T, H, D), d_query.reshape(B, T, H, D), d_out.reshape(B, T, H, D)
    keys, d_keys = key.reshape(B, S, G, D), d_key.reshape(B, S, G, D)
    values, d_values = value.reshape(B, S, G, D), d_value.reshape(B, S, G, D)
    factor = real(scale)
    d_weights = np.empty(S, query.dtype)
    for b in range(B):
        for t in range(T):
            seen, hidden = _seen(t, T, S, causal, reach)
            for h in range(H):
                g = h // (H // G)
                q, d_q, d_mean, row = (
                    queries[b, t, h],
                    d_queries[b, t, h],
                    d_means[b, t, h],
                    weights[b, t, h, seen:hidden],
                )
                along = real(0)
                for s in range(row.size):
                    v, d_v = values[b, seen + s, g], d_values[b, seen + s, g]
                    weight, d_weight = row[s], real(0)
                    for d in range(D):
                        d_weight += d_mean[d] * v[d]
                        d_v[d] += weight * d_mean[d]
                    d_weights[s] = d_weight
                    along += weight * d_weight
                for s in range(row.size):
                    k, d_k = keys[b, seen + s, g], d_keys[b, seen + s, g]
                    d_product = (d_weights[s] - along) * row[s] * factor
                    for d in range(D):
                        d_q[d] += d_product * k[d]
                        d_k[d] += d_product * q[d]


@compiled
def _seen(t: int, T: int, S: int, causal: bool, reach: int) -> tuple[int, int]:
    """Return the first key that query t sees and the first behind those it sees."""
    behind = S - T + t + 1
    return max(0, behind - reach), behind if causal else S
