"""Linear layers, whose weights' gradients are accumulated directly in their buffers: three products for each, or for
several of one input whose weights are neighbours in memory, as those of query, key and value are in `Parameters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_chat.autograd import Unshared, compute_for
from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous
from tinygrad_chat.kernels.cuda.matmul import gemm
from tinygrad_chat.kernels.cuda.pending import WeightGradients
from tinygrad_chat.kernels.cuda.pointwise import add
from tinygrad_chat.kernels.cuda.slices import dense_rows, joined, runs, split_columns
from tinygrad_chat.kernels.cuda.sums import column_sums
from tinygrad_chat.ops.matmul import check_linear, weights_and_biases_of
from tinygrad_chat.ops.shape import rows_of


def linear(x: Any, weight: Any, bias: Any = None):
    """`ops.linear`."""
    (out,), backward = linears(x, weight, *([] if bias is None else [bias]))
    return out, backward


def linears(x: Any, *weights_and_biases: Any):
    """`ops.linears`. The results of neighbouring weights are slices of one array. Where their gradients are, too, as
    those that attention returns, the backward rule takes one product for all as well."""
    layers = list(zip(*weights_and_biases_of(weights_and_biases), strict=True))
    for weight, bias in layers:
        check_linear(x, weight, bias)
    xp, real, tf32, widths = array_module(x), x.dtype, compute_for(x).tf32, [len(weight) for weight, _ in layers]
    rows, outs = dense_rows(x, real), []
    for part, (weight, bias) in runs(layers, _joined_layers):
        out = gemm(rows, weight.T, xp.empty((len(rows), len(weight)), real), tf32=tf32)
        if bias is not None:
            out = add(out, bias)[0]
        outs += split_columns(out.reshape(*x.shape[:-1], len(weight)), widths[part])

    def backward(*d_outs: Any):
        d_x = xp.empty(rows.shape, real)
        d_weights: list[Any] = [None] * len(layers)
        d_biases = list(d_weights)
        used = [i for i, d_out in enumerate(d_outs) if d_out is not None]
        pairs = [(layers[i][0], xp.asarray(d_outs[i], dtype=real)) for i in used]
        for part, (weight, d_out) in runs(pairs, _joined_gradients):
            d_rows, here = rows_of(d_out), used[part]
            heights = [widths[i] for i in here]
            gemm(d_rows, weight, d_x, tf32=tf32, add=part.start > 0)
            for i, d_weight in zip(here, WeightGradients(d_rows.T, rows, tf32=tf32).of(heights), strict=True):
                d_weights[i] = d_weight
            if layers[here[0]][1] is not None:
                sums = split_columns(column_sums(contiguous(d_rows, real)), heights)
                for i, d_bias in zip(here, sums, strict=True):
                    d_biases[i] = d_bias
        return Unshared((d_x.reshape(x.shape), *d_weights, *d_biases))

    return tuple(outs), backward


def _joined_layers(layers: Sequence[tuple[Any, Any]]) -> tuple[Any, Any] | None:
    """Return weights and biases of neighbouring layers as one weight and one bias, which may be None."""
    weights, biases = zip(*layers, strict=True)
    weight = joined(weights, 0)
    if biases[0] is None or weight is None:
        return None if weight is None else (weight, None)
    bias = joined(biases, 0)
    return None if bias is None else (weight, bias)


def _joined_gradients(pairs: Sequence[tuple[Any, Any]]) -> tuple[Any, Any] | None:
    """Return neighbouring weights and the gradients of their results as one weight and one gradient."""
    weights, d_outs = zip(*pairs, strict=True)
    weight, d_out = joined(weights, 0), joined(d_outs, -1)
    return None if weight is None or d_out is None else (weight, d_out)
