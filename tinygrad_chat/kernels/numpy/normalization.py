"""Normalisation of rows, in place; sums along and across them are products with a vector, which BLAS makes fastest."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinygrad_chat.ops.normalization import check_row_vector


def layernorm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray | None = None, *, epsilon: float = 1e-5):
    """`ops.layernorm`, saving the normalised rows and 1 / standard deviation."""
    check_row_vector("layernorm", "gain", gain, x)
    check_row_vector("layernorm", "bias", bias, x)
    rows = x.reshape(-1, x.shape[-1])
    N, C = rows.shape
    unit = rows - (rows @ _constant(1 / C, C, rows.dtype))[:, None]
    inverse_std = _inverse_root_mean_square(unit, epsilon)
    unit *= inverse_std
    out = unit * gain
    if bias is not None:
        out += bias

    def backward(d_out: np.ndarray):
        d_rows, ones = d_out.reshape(N, C), _constant(1, N, rows.dtype)
        products, share = d_rows * unit, gain / C
        along_unit, along_mean = (products @ share)[:, None], (d_rows @ share)[:, None]
        d_gain = ones @ products
        d_x = d_rows * gain
        d_x -= along_mean
        d_x -= np.multiply(unit, along_unit, out=products)
        d_x *= inverse_std
        return d_x.reshape(x.shape), d_gain, ones @ d_rows if bias is not None else None

    return out.reshape(x.shape), backward


def rmsnorm(x: np.ndarray, gain: np.ndarray | None = None, *, epsilon: float = 1e-5):
    """`ops.rmsnorm`, saving the normalised rows and 1 / root mean square."""
    check_row_vector("rmsnorm", "gain", gain, x)
    rows = x.reshape(-1, x.shape[-1])
    N, C = rows.shape
    inverse_rms = _inverse_root_mean_square(rows, epsilon)
    unit = rows * inverse_rms
    out = unit if gain is None else unit * gain

    def backward(d_out: np.ndarray):
        d_rows, factor = d_out.reshape(N, C), _constant(1, C, rows.dtype) if gain is None else gain
        products = d_rows * unit
        along_unit = (products @ (factor / C))[:, None]
        d_gain = None if gain is None else _constant(1, N, rows.dtype) @ products
        d_x = d_rows * factor
        d_x -= np.multiply(unit, along_unit, out=products)
        d_x *= inverse_rms
        return d_x.reshape(x.shape), d_gain

    return out.reshape(x.shape), backward


def _inverse_root_mean_square(rows: np.ndarray, epsilon: float) -> np.ndarray:
    return 1 / np.sqrt(np.vecdot(rows, rows) / rows.shape[1] + epsilon)[:, None]


@functools.lru_cache(maxsize=64)
def _constant(number: float, length: int, dtype: Any) -> np.ndarray:
    return np.full(length, number, dtype)
