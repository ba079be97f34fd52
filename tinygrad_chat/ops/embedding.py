"""The embedding: one row of a table for each token."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module


@differentiable
def embedding(table: Any, tokens: Any):
    """Rows of table (V, C) for integer tokens (...) -> (..., C). A token that occurs twice receives both gradients."""

    def backward(d_out):
        xp = array_module(table)
        d_table = xp.zeros_like(table)
        xp.add.at(d_table, tokens, d_out)
        return d_table, None

    return table[tokens], backward
