"""Sums over rows, in the same order on every run."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import MOST_CHUNKS, launch, per_thread, width

LEAST_ROWS = 16  # per chunk: with fewer, there would be about as many partial sums to add as rows


def column_sums(rows: Any) -> Any:
    """Return the sums of rows (N, C) over N: (C,) in float32."""
    N, C = rows.shape
    partial = array_module(rows).empty((chunks_of(N), C), np.float32)
    each = width(C, rows, partial)
    launch("sums.cu", "column_sums", rows.dtype, (per_thread(C, each), len(partial)), rows, partial, N, C, each > 1)
    return add_chunks(partial, rows.dtype)


def chunks_of(rows: int) -> int:
    """Return how many chunks `rows` are divided into; at least one, as no rows have a sum too, 0."""
    return min(max(-(-rows // LEAST_ROWS), 1), MOST_CHUNKS)


def add_chunks(partial: Any, real: Any) -> Any:
    """Return the sums of partial (chunks, ...) over the chunks."""
    out = array_module(partial).empty(partial.shape[1:], np.float32)
    launch("sums.cu", "add_chunks", real, per_thread(out.size), partial, out, len(partial), out.size)
    return out
