"""Attention with one array of scores that becomes the weights in place."""

from __future__ import annotations

import math

import numpy as np

from tinygrad_chat.ops.attention import check_attention, visible_positions


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, *, causal: bool = True, window: int | None = None):
    """`ops.attention`, with the same saved weights and half the passes over them."""
    check_attention(query, key, value, window)
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    scale = 1 / math.sqrt(D)
    q = (query * scale).reshape(B, G, H // G, T, D)  # cheaper than to scale the scores
    k, v = key[:, :, None], value[:, :, None]
    weights = q @ k.swapaxes(-1, -2)
    weights += np.where(visible_positions(np, T, S, causal=causal, window=window), 0, -math.inf).astype(query.dtype)
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    out = weights @ v

    def backward(d_out: np.ndarray):
        d_o = d_out.reshape(out.shape)
        d_scores = d_o @ v.swapaxes(-1, -2)
        d_scores -= np.einsum("...td,...td->...t", d_o, out)[..., None]  # sum_s d_weights * weights
        d_scores *= weights
        d_query = d_scores @ k
        d_query *= scale
        d_key = (d_scores.swapaxes(-1, -2) @ q).sum(axis=2)
        d_value = (weights.swapaxes(-1, -2) @ d_o).sum(axis=2)
        return d_query.reshape(query.shape), d_key, d_value

    return out.reshape(*query.shape[:-1], value.shape[-1]), backward
