"""Normalisation of rows: layernorm and rmsnorm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError


def check_row_vector(op: str, name: str, vector: Any, x: Any) -> None:
    """Raise ShapeError unless rows of x have features and `vector`, if given, has one element per feature."""
    if x.shape[-1] == 0:
        raise ShapeError(f"{op}: expected rows of at least 1 feature, received x {x.shape}")
    if vector is not None and vector.shape != x.shape[-1:]:
        raise ShapeError(f"{op}: {name} has shape {vector.shape} but rows of x have {x.shape[-1]} features")


def check_same_shape(op: str, x: Any, branch: Any) -> None:
    """Raise ShapeError unless `branch`, which is to be added to x, has x's shape."""
    if branch.shape != x.shape:
        raise ShapeError(f"{op}: expected x and branch of one shape, received {x.shape} and {branch.shape}")


def sum_rows(rows: Any) -> Any:
    """Sum rows (..., C) -> (C,)."""
    return rows.sum(axis=tuple(range(rows.ndim - 1)))


@differentiable
def layernorm(x: Any, gain: Any, bias: Any = None, *, epsilon: float = 1e-5):
    """Give each row of x mean 0 and variance 1, then scale and shift (Ba et al., arXiv:1607.06450).

    x (..., C), gain (C,), bias (C,) or None -> (..., C). `epsilon` keeps a constant row finite.
    """
    check_row_vector("layernorm", "gain", gain, x)
    check_row_vector("layernorm", "bias", bias, x)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    inverse_std = 1 / array_module(x).sqrt(variance + epsilon)
    unit = centred * inverse_std
    out = unit * gain
    if bias is not None:
        out = out + bias

    def backward(d_out):  # derivation: docs/derivations/normalization.md
        d_unit = d_out * gain
        along_mean = d_unit.mean(axis=-1, keepdims=True)
        along_unit = (d_unit * unit).mean(axis=-1, keepdims=True)
        d_x = inverse_std * (d_unit - along_mean - unit * along_unit)
        return d_x, sum_rows(d_out * unit), sum_rows(d_out) if bias is not None else None

    return out, backward


@differentiable
def rmsnorm(x: Any, gain: Any = None, *, epsilon: float = 1e-5):
    """Divide each row of x by its root mean square, then scale (Zhang & Sennrich, arXiv:1910.07467).

    x (..., C), gain (C,) or None -> (..., C).
    """
    check_row_vector("rmsnorm", "gain", gain, x)
    mean_square = (x * x).mean(axis=-1, keepdims=True)
    inverse_rms = 1 / array_module(x).sqrt(mean_square + epsilon)
    unit = x * inverse_rms
    out = unit if gain is None else unit * gain

    def backward(d_out):  # derivation: docs/derivations/normalization.md
        d_unit = d_out if gain is None else d_out * gain
        along_unit = (d_unit * unit).mean(axis=-1, keepdims=True)
        d_x = inverse_rms * (d_unit - unit * along_unit)
        return d_x, None if gain is None else sum_rows(d_out * unit)

    return out, backward


def after_addition(norm: Callable[..., Any]) -> Callable[..., Any]:
    """Turn an array function `norm(x, gain, ...) -> (out, backward)` into one that adds first:
    (x, branch, gain, ...) -> ((total, out), backward), where total is x + branch and out its norm."""

    def added(x: Any, branch: Any, *vectors: Any, **options: Any):
        check_same_shape("add_norm", x, branch)
        total = x + branch
        out, norm_backward = norm(total, *vectors, **options)

        def backward(d_total, d_out):
            if d_out is None:
                return d_total, d_total, *(None for _ in vectors)
            d_x, *d_vectors = norm_backward(d_out)
            if d_total is not None:
                d_x = d_x + d_total
            return d_x, d_x, *d_vectors

        return (total, out), backward

    return added


@differentiable
def add_layernorm(x: Any, branch: Any, gain: Any, bias: Any = None, *, epsilon: float = 1e-5):
    """x + branch, the new residual stream, and its layernorm, the next layer's input: both (..., C)."""
    return after_addition(layernorm.reference)(x, branch, gain, bias, epsilon=epsilon)


@differentiable
def add_rmsnorm(x: Any, branch: Any, gain: Any = None, *, epsilon: float = 1e-5):
    """x + branch, the new residual stream, and its rmsnorm, the next layer's input: both (..., C)."""
    return after_addition(rmsnorm.reference)(x, branch, gain, epsilon=epsilon)
