"""Normalisation of rows, in place; sums of products by einsum, which needs no array for the products."""

from __future__ import annotations

import numpy as np

from tinygrad_chat.ops.normalization import check_row_vector


def layernorm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray | None = None, *, epsilon: float = 1e-5):
    """`ops.layernorm`, saving the normalised rows and 1 / standard deviation."""
    check_row_vector("layernorm", "gain", gain, x)
    check_row_vector("layernorm", "bias", bias, x)
    rows = x.reshape(-1, x.shape[-1])
    unit = rows - rows.mean(axis=1, keepdims=True)
    inverse_std = _inverse_root_mean_square(unit, epsilon)
    unit *= inverse_std
    out = unit * gain
    if bias is not None:
        out += bias

    def backward(d_out: np.ndarray):
        d_rows = d_out.reshape(rows.shape)
        d_unit = d_rows * gain
        d_x = unit * -_mean_of_products(d_unit, unit)
        d_x += d_unit
        d_x -= d_unit.mean(axis=1, keepdims=True)
        d_x *= inverse_std
        return d_x.reshape(x.shape), _column_sums(d_rows, unit), d_rows.sum(axis=0) if bias is not None else None

    return out.reshape(x.shape), backward


def rmsnorm(x: np.ndarray, gain: np.ndarray | None = None, *, epsilon: float = 1e-5):
    """`ops.rmsnorm`, saving the normalised rows and 1 / root mean square."""
    check_row_vector("rmsnorm", "gain", gain, x)
    rows = x.reshape(-1, x.shape[-1])
    inverse_rms = _inverse_root_mean_square(rows, epsilon)
    unit = rows * inverse_rms
    out = unit if gain is None else unit * gain

    def backward(d_out: np.ndarray):
        d_rows = d_out.reshape(rows.shape)
        d_unit = d_rows if gain is None else d_rows * gain
        d_x = unit * -_mean_of_products(d_unit, unit)
        d_x += d_unit
        d_x *= inverse_rms
        return d_x.reshape(x.shape), None if gain is None else _column_sums(d_rows, unit)

    return out.reshape(x.shape), backward


def _mean_of_products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.einsum("nc,nc->n", x, y) / x.shape[1])[:, None]


def _inverse_root_mean_square(rows: np.ndarray, epsilon: float) -> np.ndarray:
    return 1 / np.sqrt(_mean_of_products(rows, rows) + epsilon)


def _column_sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.einsum("nc,nc->c", x, y)
