"""Flash decoding: attention of one query of each sequence, as in generation, split over the keys."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous, dense, in_memory, launch, width

CHUNK = 128  # keys of a block, as in flash_decoding.cu


def flash_decoding(
    query: Any, key: Any, value: Any, *, heads: int, window: int | None, document_starts: Any, length: Any
) -> Any:
    """Return what `ops.attention` does for one query of each sequence.

    The arrays may be slices of larger ones, as those of a cache are. `length` is read from the device's memory, so a
    replayed call reads another one each time.
    """
    xp, real, (B, S), D = array_module(query), query.dtype, key.shape[:2], query.shape[2] // heads
    query, key, value = (dense(x) for x in (query, key, value))
    starts = None if document_starts is None else contiguous(document_starts, np.int64)
    if length is not None:
        length = contiguous(in_memory(xp, length, np.int64), np.int64)
    chunks = -(-S // CHUNK)
    largest, totals = (xp.empty((B, heads, chunks), np.float32) for _ in range(2))
    sums, out = xp.empty((B, heads, chunks, D), np.float32), xp.empty(query.shape, real)
    apart = [
        x.strides[axis] // x.itemsize for x, axes in ((query, (0,)), (key, (0, 1)), (value, (0, 1))) for axis in axes
    ]
    wide = width(math.gcd(D, *apart), query, key, value) > 1
    arrays = query, key, value, starts, length, largest, totals, sums
    settings = S, D, query.shape[2] // key.shape[2], min(window or S, S), *apart, wide, 1 / math.sqrt(D)
    grid = chunks, heads, B
    launch("flash_decoding.cu", "flash_decoding_split", real, grid, *arrays, *settings, threads=CHUNK)
    arrays = largest, totals, sums, out
    launch("flash_decoding.cu", "flash_decoding_combine", real, B * heads, *arrays, chunks, D, threads=CHUNK)
    return out
