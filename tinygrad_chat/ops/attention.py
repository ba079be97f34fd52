"""Scaled dot-product attention (Vaswani et al., arXiv:1706.03762): causal, windowed, within documents, with shared
key/value heads."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError


def visible_positions(
    xp: Any, T: int, S: int, *, causal: bool, window: int | None, document_starts: Any = None, length: Any = None
) -> Any:
    """Which of S keys each of T queries may see, (T, S) booleans; with `document_starts` (B, T), (B, 1, 1, T, S).

    The last query is at the position of the last key or, with `length`, of the last of that many, so with a cache T may
    be smaller than S. `window` counts the positions seen, the query's own included.
    """
    length = S if length is None else length
    query = xp.arange(T)[:, None] + (length - T)
    key = xp.arange(S)[None, :]
    visible = key <= query if causal else xp.broadcast_to(key < length, (T, S))
    if window is not None:
        visible = visible & (key > query - window)
    if document_starts is not None:
        visible = visible & (key >= document_starts[:, None, None, :, None])
    return visible


def check_attention(
    query: Any, key: Any, value: Any, heads: int, window: int | None, document_starts: Any = None
) -> None:
    """Raise ShapeError unless query (B, T, H D) with H = `heads` and key and value (B, S, G D) fit, G divides H, every
    window contains at least the query's own position, and there is one document start per query; T may be 0."""
    if heads < 1:
        raise ShapeError(f"attention: expected at least 1 head, received {heads}")
    D, left_over = divmod(query.shape[-1], heads)
    G = key.shape[-1] // max(D, 1)
    fits = (
        query.ndim == key.ndim == value.ndim == 3
        and left_over == 0 < G
        and key.shape == value.shape == (query.shape[0], key.shape[1], G * D)
        and heads % G == 0
        and query.shape[1] <= key.shape[1] > 0
    )
    if not fits:
        raise ShapeError(
            f"attention: expected query (B, T, {heads} D), key and value (B, S, G D) with G dividing {heads} and "
            f"T <= S > 0, received {query.shape}, {key.shape}, {value.shape}"
        )
    if window is not None and window < 1:
        raise ShapeError(f"attention: expected a window of at least 1 position, received {window}")
    if document_starts is not None and document_starts.shape != query.shape[:2]:
        raise ShapeError(
            f"attention: expected document_starts {query.shape[:2]}, one for each query, received "
            f"{document_starts.shape}"
        )


def split_heads(x: Any, G: int, D: int) -> Any:
    """View x (B, T, H D) as (B, G, H / G, T, D), without a copy: heads that share a key/value head are adjacent."""
    return x.reshape(*x.shape[:2], G, x.shape[2] // (G * D), D).transpose(0, 2, 3, 1, 4)


def merge_heads(x: Any) -> Any:
    """Undo `split_heads`."""
    B, G, shared, T, D = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(B, T, G * shared * D)


def attention_weights(
    query: Any,
    key: Any,
    *,
    heads: int,
    causal: bool = True,
    window: int | None = None,
    document_starts: Any = None,
    length: Any = None,
) -> Any:
    """The weights (B, G, H / G, T, S) with which `attention` averages the values: softmax(query . key / sqrt(D)) over
    the keys that each query may see. The arguments are those of `attention`."""
    D = query.shape[2] // heads
    q, k = (split_heads(x, key.shape[2] // D, D) for x in (query, key))
    seen = {"causal": causal, "window": window, "document_starts": document_starts, "length": length}
    return _weights(q, k, scale=1 / math.sqrt(D), **seen)


def _weights(q: Any, k: Any, *, scale: float, **seen: Any) -> Any:
    """The weights of queries q (B, G, H / G, T, D) and keys k (B, G, 1, S, D); `seen` is for `visible_positions`."""
    xp = array_module(q)
    visible = visible_positions(xp, q.shape[-2], k.shape[-2], **seen)
    scores = xp.where(visible, (q @ k.swapaxes(-1, -2)) * scale, -math.inf)
    e = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@differentiable
def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    heads: int,
    causal: bool = True,
    window: int | None = None,
    document_starts: Any = None,
    length: Any = None,
):
    """For each query, the mean of the values, weighted by softmax(query . key / sqrt(D)) over the keys it may see.

    query (B, T, H D), key (B, S, G D), value (B, S, G D) -> (B, T, H D): the channels of H = `heads` heads, each D
    wide, are side by side. H / G neighbouring query heads share one key/value head. `causal` hides later positions;
    `window` hides those that many or more positions back. `document_starts` (B, T) are integers: for each query, the
    key at which its document begins, at or before its own position. Earlier keys are hidden. `length`, a number or an
    array without axes, says how many of the S keys there are yet: the last query is at the last of them, and those
    behind it are hidden.
    """
    check_attention(query, key, value, heads, window, document_starts)
    D = query.shape[2] // heads
    G, scale = key.shape[2] // D, 1 / math.sqrt(D)
    q, k, v = (split_heads(x, G, D) for x in (query, key, value))
    seen = {"causal": causal, "window": window, "document_starts": document_starts, "length": length}
    weights = _weights(q, k, scale=scale, **seen)
    out = weights @ v

    def backward(d_out):  # derivation: docs/derivations/attention.md
        d_o = split_heads(d_out, G, D)
        d_weights = d_o @ v.swapaxes(-1, -2)
        d_scores = weights * (d_weights - (d_weights * weights).sum(axis=-1, keepdims=True))
        d_products = d_scores * scale  # of q @ k.T, before the scale
        d_query = d_products @ k
        d_key = (d_products.swapaxes(-1, -2) @ q).sum(axis=2, keepdims=True)
        d_value = (weights.swapaxes(-1, -2) @ d_o).sum(axis=2, keepdims=True)
        return merge_heads(d_query), merge_heads(d_key), merge_heads(d_value)

    return merge_heads(out), backward
