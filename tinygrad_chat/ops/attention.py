"""Scaled dot-product attention (Vaswani et al., arXiv:1706.03762), causal, windowed and with shared key/value heads."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError


def visible_positions(xp: Any, T: int, S: int, *, causal: bool, window: int | None) -> Any:
    """Which of S keys each of T queries may look at, (T, S) booleans.

    The last query stands at the last key, so with a cache T may be smaller than S. `window` counts the positions
    seen, the query's own included.
    """
    query = xp.arange(S - T, S)[:, None]
    key = xp.arange(S)[None, :]
    visible = key <= query if causal else xp.ones((T, S), dtype=bool)
    if window is not None:
        visible = visible & (key > query - window)
    return visible


def check_attention(query: Any, key: Any, value: Any, window: int | None) -> None:
    """Raise ShapeError unless query (B, H, T, D), key (B, G, S, D) and value (B, G, S, any width) fit, with G dividing
    H, and every query sees at least its own position."""
    fits = (
        query.ndim == key.ndim == value.ndim == 4
        and key.shape[:3] == value.shape[:3]
        and query.shape[0] == key.shape[0]
        and query.shape[1] % key.shape[1] == 0
        and query.shape[2] <= key.shape[2]
        and query.shape[3] == key.shape[3]
    )
    if not fits:
        raise ShapeError(
            "attention: expected query (B, H, T, D), key and value (B, G, S, D) with G dividing H and T <= S, "
            f"received {query.shape}, {key.shape}, {value.shape}"
        )
    if window is not None and window < 1:
        raise ShapeError(f"attention: expected a window of at least 1 position, received {window}")


@differentiable
def attention(query: Any, key: Any, value: Any, *, causal: bool = True, window: int | None = None):
    """Each query's mean of the values, weighted by softmax(query . key / sqrt(D)) over the keys that it may see.

    query (B, H, T, D), key (B, G, S, D), value (B, G, S, D) -> (B, H, T, D). H / G neighbouring query heads share
    one key/value head. `causal` hides later positions, `window` those further back than that many.
    """
    check_attention(query, key, value, window)
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    xp = array_module(query)
    scale = 1 / math.sqrt(D)
    q = query.reshape(B, G, H // G, T, D)  # heads that share a key/value head, side by side
    k, v = key[:, :, None], value[:, :, None]
    visible = visible_positions(xp, T, S, causal=causal, window=window)
    scores = xp.where(visible, (q @ k.swapaxes(-1, -2)) * scale, -math.inf)
    e = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = e / e.sum(axis=-1, keepdims=True)  # (B, G, H / G, T, S)
    out = weights @ v

    def backward(d_out):  # derivation: docs/derivations/attention.md
        d_o = d_out.reshape(out.shape)
        d_weights = d_o @ v.swapaxes(-1, -2)
        d_scores = weights * (d_weights - (d_weights * weights).sum(axis=-1, keepdims=True))
        d_products = d_scores * scale  # of q @ k.T, before the scale
        d_query = d_products @ k
        d_key = (d_products.swapaxes(-1, -2) @ q).sum(axis=2)
        d_value = (weights.swapaxes(-1, -2) @ d_o).sum(axis=2)
        return d_query.reshape(query.shape), d_key, d_value

    return out.reshape(*query.shape[:-1], value.shape[-1]), backward
