"""Attention: cuBLAS products around a masked softmax, a few sequences at a time, so that scores stay in the cache."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import Unshared, compute_for
from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda import flash_attention
from tinygrad_chat.kernels.cuda.flash_decoding import flash_decoding
from tinygrad_chat.kernels.cuda.launch import contiguous, launch, per_warp, width
from tinygrad_chat.kernels.cuda.matmul import gemm
from tinygrad_chat.kernels.cuda.slices import empty_neighbours
from tinygrad_chat.ops.attention import check_attention, split_heads


@functools.cache
def scores_in_cache(xp: Any, device: int) -> int:
    """Return how many float32 scores to compute at a time: half of the L2 cache, which an H100 has in two halves."""
    return xp.cuda.runtime.getDeviceProperties(device)["l2CacheSize"] // 2 // np.dtype(np.float32).itemsize


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
    """`ops.attention`. Scores and softmax are float32.

    One query of each sequence, as in generation, is flash decoding; should anybody ask for its gradient, it is computed
    again as others are.
    """
    check_attention(query, key, value, heads, window, document_starts)
    seen: dict[str, Any] = {"causal": causal, "window": window, "document_starts": document_starts}
    again = _attention if length is None else functools.partial(_in_float32, length=length)
    if query.shape[1] == 1:
        out = flash_decoding(
            query, key, value, heads=heads, window=window, document_starts=document_starts, length=length
        )
        return out, lambda d_out: again(query, key, value, heads=heads, **seen)[1](d_out)
    return again(query, key, value, heads=heads, **seen)


def _in_float32(query: Any, key: Any, value: Any, **options: Any):
    """`ops.attention` by the op itself: CuPy multiplies no batches of bfloat16."""
    out, backward = ops.attention.reference(*(x.astype(np.float32) for x in (query, key, value)), **options)
    real = query.dtype
    return out.astype(real), lambda d_out: tuple(d_x.astype(real) for d_x in backward(d_out.astype(np.float32)))


def _attention(query: Any, key: Any, value: Any, *, heads: int, causal: bool, window: int | None, document_starts: Any):
    """`ops.attention` by flash attention where it has tiles, else with all weights in memory, in the type of the query:
    in float32, and for heads of other widths."""
    (B, T), S, D = query.shape[:2], key.shape[1], query.shape[2] // heads
    if query.dtype.name == "bfloat16" and D in flash_attention.WIDTHS:
        seen = {"causal": causal, "window": window, "document_starts": document_starts}
        return flash_attention.attention(query, key, value, heads=heads, **seen)
    G = key.shape[2] // D
    xp, real, shared = array_module(query), query.dtype, heads // G
    scale, limits = 1 / math.sqrt(D), (T, S, heads, causal, S if window is None else window)
    starts = None if document_starts is None else contiguous(document_starts, np.int64)
    product = functools.partial(gemm, tf32=compute_for(query).tf32)
    q, k, v = (split_heads(x, G, D) for x in (query, key, value))
    out = xp.empty(query.shape, real)
    o = split_heads(out, G, D)
    # The axis `shared` comes first, so that the heads of one index along it are adjacent, as their keys are.
    weights = xp.empty((B, shared, G, T, S), real)
    cached = scores_in_cache(xp, xp.cuda.runtime.getDevice())
    parts = _parts(B, max(1, cached // max(1, heads * T * S)))
    for part in parts:
        scores = xp.empty(weights[part].shape, np.float32)
        rows = scores.size // max(S, 1)
        for r in range(shared):
            product(q[part, :, r], k[part, :, 0].swapaxes(-1, -2), scores[:, r], scale=scale)
        wide = width(S, scores, weights[part]) > 1
        arrays = scores, weights[part], None if starts is None else starts[part]
        launch("attention.cu", "masked_softmax", real, per_warp(rows), *arrays, rows, *limits, wide)
        for r in range(shared):
            product(weights[part, r], v[part, :, 0], o[part, :, r])

    def backward(d_out: Any):
        d_o = split_heads(contiguous(d_out, real), G, D)
        d_query, d_key, d_value = empty_neighbours((query, key, value))
        d_q, d_k, d_v = (split_heads(x, G, D) for x in (d_query, d_key, d_value))
        for part in parts:
            d_weights = xp.empty(weights[part].shape, np.float32)
            d_scores = xp.empty(d_weights.shape, real)
            rows = d_weights.size // max(S, 1)
            for r in range(shared):
                product(d_o[part, :, r], v[part, :, 0].swapaxes(-1, -2), d_weights[:, r])
            arrays = weights[part], d_weights, d_scores
            settings = None if starts is None else starts[part], rows, *limits, width(S, *arrays) > 1, scale
            launch("attention.cu", "masked_softmax_backward", real, per_warp(rows), *arrays, *settings)
            for r in range(shared):
                transposed = d_scores[:, r].swapaxes(-1, -2)
                product(d_scores[:, r], k[part, :, 0], d_q[part, :, r])
                product(transposed, q[part, :, r], d_k[part, :, 0], add=r > 0)
                product(weights[part, r].swapaxes(-1, -2), d_o[part, :, r], d_v[part, :, 0], add=r > 0)
        return Unshared((d_query, d_key, d_value))

    return out, backward


def _parts(B: int, length: int) -> list[slice]:
    return [slice(start, min(start + length, B)) for start in range(0, B, length)]
