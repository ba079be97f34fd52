"""The embedding: rows are gathered, and their gradients summed token by token, in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import PendingGradient
from tinygrad_chat.backend import array_module, narrowed
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.kernels.cuda.launch import contiguous, launch, width

CHUNK = 32  # sorted rows that a block sums, as in embedding.cu


def embedding(table: Any, tokens: Any):
    """`ops.embedding`. A token outside the table yields a row of NaNs: a check would block the host."""
    xp, real, (V, C) = array_module(table), table.dtype, table.shape
    tokens = xp.asarray(tokens)
    if tokens.dtype.kind not in "iu":
        raise ShapeError(f"embedding: expected whole numbers as tokens, received {tokens.dtype}")
    table, tokens = contiguous(table, real), contiguous(narrowed(tokens), np.int32)
    out = xp.empty((*tokens.shape, C), real)
    wide = width(C, table, out) > 1
    launch("embedding.cu", "embedding", real, tokens.size, table, tokens, out, V, C, wide)

    def backward(d_out: Any):
        return PendingRows(tokens.ravel() % V, contiguous(d_out, real), (V, C)), None

    return out, backward


class PendingRows(PendingGradient):
    """The table's gradient, not yet computed: sums of the rows of each token. Only these rows of it are touched."""

    def __init__(self, tokens: Any, d_out: Any, shape: tuple[int, int]) -> None:
        self._tokens, self._d_out, self.shape = tokens, d_out, shape

    def add_to(self, buffer: Any) -> None:
        """Add each sum to its row of a float32 buffer."""
        tokens, d_out, sizes = self._tokens, self._d_out, (self._tokens.size, self.shape[1])
        xp, real, chunks = array_module(tokens), d_out.dtype, -(-tokens.size // CHUNK)
        # A radix sort takes its time for each byte of the keys: two, not eight, for a vocabulary up to 65,536.
        order = xp.argsort(tokens.astype(np.min_scalar_type(self.shape[0] - 1)), kind="stable")
        heads, tails = (xp.empty((chunks, self.shape[1]), np.float32) for _ in range(2))
        arrays = tokens, order, d_out, buffer, heads, tails
        launch("embedding.cu", "embedding_backward", real, chunks, *arrays, *sizes)
        launch("embedding.cu", "embedding_backward_join", real, chunks, tokens, order, heads, tails, buffer, *sizes)

    def array(self) -> Any:
        """Return all rows in float32."""
        out = array_module(self._tokens).zeros(self.shape, np.float32)
        self.add_to(out)
        return out
