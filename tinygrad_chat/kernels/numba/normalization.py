"""Normalisation, a row at a time: while the row is in the L1 cache, further passes over it cost little."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.kernels.numba.compilation import as_rows, compiled, contiguous
from tinygrad_chat.kernels.numba.threads import divided
from tinygrad_chat.ops.normalization import check_row_vector


def layernorm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray | None = None, *, epsilon: float = 1e-5):
    """`ops.layernorm`, saving two numbers per row."""
    check_row_vector("layernorm", "gain", gain, x)
    check_row_vector("layernorm", "bias", bias, x)
    return _normalization(x, gain, bias, epsilon, centred=True)


def rmsnorm(x: np.ndarray, gain: np.ndarray | None = None, *, epsilon: float = 1e-5):
    """`ops.rmsnorm`: layernorm's maths with a mean of 0."""
    check_row_vector("rmsnorm", "gain", gain, x)
    out, layernorm_backward = _normalization(x, gain, None, epsilon, centred=False)

    def backward(d_out: np.ndarray):
        return layernorm_backward(d_out)[:2]

    return out, backward


def _normalization(x: np.ndarray, gain: np.ndarray | None, bias: np.ndarray | None, epsilon: float, *, centred: bool):
    rows = as_rows(x)
    gain, bias = (None if vector is None else contiguous(vector) for vector in (gain, bias))
    out, statistics = np.empty_like(rows), np.empty((len(rows), 2), rows.dtype)
    divided(lambda *arrays: _normalize(*arrays, gain, bias, epsilon, centred), rows, out, statistics)

    def backward(d_out: np.ndarray):
        d_x = np.empty_like(rows)
        d_gain = None if gain is None else np.zeros_like(gain)
        d_bias = None if bias is None else np.zeros_like(bias)
        _normalize_backward(rows, gain, centred, statistics, as_rows(d_out), d_x, d_gain, d_bias)
        return d_x.reshape(x.shape), d_gain, d_bias

    return out.reshape(x.shape), backward


@compiled
def _normalize(rows: Any, out: Any, statistics: Any, gain: Any, bias: Any, epsilon: float, centred: bool) -> None:
    """Normalise into `out`; write each row's mean, or 0, and 1 / standard deviation to `statistics` (N, 2)."""
    real = rows.dtype.type
    N, C = rows.shape
    for n in range(N):
        mean = real(0)
        if centred:
            for c in range(C):
                mean += rows[n, c]
            mean /= real(C)
        square = real(0)
        for c in range(C):
            centred_x = rows[n, c] - mean
            square += centred_x * centred_x
        inverse_std = real(1) / np.sqrt(square / real(C) + real(epsilon))
        for c in range(C):
            y = (rows[n, c] - mean) * inverse_std
            if gain is not None:
                y *= gain[c]
            if bias is not None:
                y += bias[c]
            out[n, c] = y
        statistics[n, 0], statistics[n, 1] = mean, inverse_std


@compiled
def _normalize_backward(
    rows: Any,
    gain: Any,
    centred: bool,
    statistics: Any,
    d_rows: Any,
    d_x: Any,
    d_gain: Any,
    d_bias: Any,
) -> None:
    real = rows.dtype.type
    N, C = rows.shape
    for n in range(N):
        mean, inverse_std = statistics[n, 0], statistics[n, 1]
        along_mean, along_unit = real(0), real(0)
        for c in range(C):
            unit = (rows[n, c] - mean) * inverse_std
            d_unit = d_rows[n, c]
            if d_bias is not None:
                d_bias[c] += d_unit
            if gain is not None:
                d_gain[c] += d_unit * unit
                d_unit *= gain[c]
            along_mean += d_unit
            along_unit += d_unit * unit
            d_x[n, c] = d_unit  # rounded as in the sums, so that what cancels below leaves no error
        along_mean = along_mean / real(C) if centred else real(0)
        along_unit /= real(C)
        for c in range(C):
            unit = (rows[n, c] - mean) * inverse_std
            d_x[n, c] = inverse_std * (d_x[n, c] - along_mean - unit * along_unit)
