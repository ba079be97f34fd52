"""The embedding, with a backward rule that adds up the rows in the order of the tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.kernels.numba.compilation import as_rows, compiled, contiguous


def embedding(table: np.ndarray, tokens: np.ndarray):
    """`ops.embedding`."""

    def backward(d_out: np.ndarray):
        d_table = np.zeros(table.shape, table.dtype)
        _add_rows(as_rows(d_out), contiguous(np.asarray(tokens, np.int64)).ravel(), d_table)
        return d_table, None

    return table[tokens], backward


@compiled
def _add_rows(rows: Any, tokens: Any, table: Any) -> None:
    """Add row n to row tokens[n] of the table; negative tokens count from its end."""
    N, C = rows.shape
    for n in range(N):
        token = tokens[n] if tokens[n] >= 0 else tokens[n] + len(table)
        row = table[token]
        for c in range(C):
            row[c] += rows[n, c]
