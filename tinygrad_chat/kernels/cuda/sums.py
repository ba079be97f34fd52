"""Sums over rows, in the same order on every run."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import PendingGradient
from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import MAX_CHUNKS, launch, per_thread, width

MIN_ROWS = 16  # per chunk: with fewer, there would be about as many partial sums to add as rows


def column_sums(rows: Any) -> Any:
    """Return the sums of rows (N, C) over N: (C,) in float32."""
    N, C = rows.shape
    partial = array_module(rows).empty((chunks_of(N), C), np.float32)
    each = width(C, rows, partial)
    launch("sums.cu", "column_sums", rows.dtype, (per_thread(C, each), len(partial)), rows, partial, N, C, each > 1)
    return add_chunks(partial, rows.dtype)


def chunks_of(rows: int) -> int:
    """Return how many chunks `rows` are divided into; at least one, as no rows have a sum too, 0."""
    return min(max(-(-rows // MIN_ROWS), 1), MAX_CHUNKS)


def add_chunks(partial: Any, real: Any, out: Any = None) -> Any:
    """Write the sums of partial (chunks, C), whose rows may be apart, over the chunks to `out` (C), by default new."""
    out = array_module(partial).empty(partial.shape[1:], np.float32) if out is None else out
    apart = partial.strides[0] // partial.itemsize
    launch("sums.cu", "add_chunks", real, per_thread(out.size), partial, out, len(partial), out.size, apart)
    return out


class PendingSums(PendingGradient):
    """A vector's gradient: sums over chunks, which are added up where the gradient is to lie."""

    def __init__(self, partial: Any, real: Any) -> None:
        self._partial, self._real, self.shape = partial, real, partial.shape[1:]

    def add_to(self, buffer: Any) -> None:
        """Add the gradient to a buffer."""
        buffer += self.array()

    def write_to(self, buffer: Any) -> None:
        """Add up in a float32 buffer."""
        add_chunks(self._partial, self._real, buffer)

    def array(self) -> Any:
        """Return the gradient in float32."""
        return add_chunks(self._partial, self._real)
