"""Matrix products: batched `matmul`, and `linear`, the form that layers use."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
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
    check_matmul(x, y)

    def backward(d_out):
        d_x = d_out @ y.swapaxes(-1, -2)
        d_y = x.swapaxes(-1, -2) @ d_out
        return sum_to(d_x, x), sum_to(d_y, y)

    return x @ y, backward


def check_matmul(x: Any, y: Any) -> None:
    """Raise ShapeError unless x (..., N, K) and y (..., K, M) are matrices, or batches of them, that can be
    multiplied."""
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"matmul: expected (..., N, K) @ (..., K, M), received {x.shape} @ {y.shape}")


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


def weights_and_biases_of(layers: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Divide the weights and biases of `linears`, with None for each bias if there are none. Raises ShapeError unless
    there is a weight, and no bias or as many as weights."""
    count = sum(each.ndim == 2 for each in layers)
    weights, biases = layers[:count], layers[count:]
    if count == 0 or any(weight.ndim != 2 for weight in weights) or len(biases) not in (0, count):
        shapes = [each.shape for each in layers]
        raise ShapeError(f"linears: expected weights (D, C), then no bias or one (D,) for each, received {shapes}")
    return weights, biases or (None,) * count


@differentiable
def linears(x: Any, *weights_and_biases: Any):
    """Several linear layers of one input: x (..., C), the weights (D, C) of all, then their biases (D,), if they have
    any -> a result (..., D) of each."""
    layers = zip(*weights_and_biases_of(weights_and_biases), strict=True)
    outs, rules = zip(*(linear.reference(x, weight, bias) for weight, bias in layers), strict=True)

    def backward(*d_outs):
        unused = None, None, None
        each = [unused if d_out is None else rule(d_out) for rule, d_out in zip(rules, d_outs, strict=True)]
        d_xs, d_weights, d_biases = zip(*each, strict=True)
        d_x = functools.reduce(operator.add, [d_x for d_x in d_xs if d_x is not None])
        return d_x, *d_weights, *d_biases

    return outs, backward
