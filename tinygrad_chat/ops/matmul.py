"""Matrix products: batched `matmul`, and `linear`, the form that layers use."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.ops.broadcasting import sum_to
from tinygrad_chat.ops.shape import rows_of


@differentiable
def matmul(x: Any, y: Any):
    """x (..., N, K) @ y (..., K, M) -> (..., N, M); leading axes broadcast.

    A transposed view is multiplied without a copy.
    """
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"matmul: expected (..., N, K) @ (..., K, M), received {x.shape} @ {y.shape}")

    def backward(d_out):
        d_x = d_out @ y.swapaxes(-1, -2)
        d_y = x.swapaxes(-1, -2) @ d_out
        return sum_to(d_x, x), sum_to(d_y, y)

    return x @ y, backward


def check_linear(x: Any, weight: Any, bias: Any) -> None:
    """Raise ShapeError unless weight (D, C) and bias (D,), if there is one, fit x (..., C)."""
    if x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"linear: weight has shape {weight.shape} but rows of x have {x.shape[-1]} features")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"linear: bias has shape {bias.shape} but the output has {weight.shape[0]} features")


@differentiable
def linear(x: Any, weight: Any, bias: Any = None):
    """x (..., C) times weight (D, C) transposed, plus bias (D,) if there is one -> (..., D)."""
    check_linear(x, weight, bias)
    rows = rows_of(x)  # one large product instead of one per leading index
    out = rows @ weight.T
    if bias is not None:
        out = out + bias

    def backward(d_out):
        d_rows = rows_of(d_out)
        d_x = (d_rows @ weight).reshape(x.shape)
        d_weight = d_rows.T @ rows
        d_bias = d_rows.sum(axis=0) if bias is not None else None
        return d_x, d_weight, d_bias

    return out.reshape(*x.shape[:-1], weight.shape[0]), backward
