"""The embedding, with a backward rule that sums the gradients of each token in one go."""

from __future__ import annotations

import numpy as np


def embedding(table: np.ndarray, tokens: np.ndarray):
    """`ops.embedding`; sorting the tokens and summing runs of equal ones is many times as fast as `np.add.at`."""

    def backward(d_out: np.ndarray):
        d_table = np.zeros_like(table)
        if tokens.size:
            flat = tokens.reshape(-1).astype(np.int64) % len(table)  # -1 and the last row are one
            order = np.argsort(flat, kind="stable")
            ordered = flat[order]
            starts = np.flatnonzero(np.diff(ordered, prepend=-1))
            d_table[ordered[starts]] = np.add.reduceat(d_out.reshape(-1, table.shape[1])[order], starts, axis=0)
        return d_table, None

    return table[tokens], backward
