"""Softmax and its logarithm, a row at a time: a row is read from memory once, and from the cache after that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_chat.kernels.numba.compilation import as_rows, compiled, inlined
from tinygrad_chat.kernels.numba.exponential import exponential, larger
from tinygrad_chat.kernels.numba.threads import divided


def softmax(x: np.ndarray, *, axis: int = -1):
    """`ops.softmax`."""
    return _rowwise(x, axis, _softmax, _softmax_backward)


def log_softmax(x: np.ndarray, *, axis: int = -1):
    """`ops.log_softmax`."""
    return _rowwise(x, axis, _log_softmax, _log_softmax_backward)


def _rowwise(x: np.ndarray, axis: int, compute: Callable[..., None], compute_backward: Callable[..., None]):
    out = _along(axis, compute, x)

    def backward(d_out: np.ndarray):
        return (_along(axis, compute_backward, out, d_out),)

    return out, backward


def _along(axis: int, compute: Callable[..., None], *arrays: np.ndarray) -> np.ndarray:
    """Return an array of the inputs' shape, filled by `compute` with `axis` as the last axis of matrices."""
    moved = [np.moveaxis(array, axis, -1) for array in arrays]
    if not moved[0].size:
        return np.empty_like(arrays[0])
    rows = [as_rows(array) for array in moved]
    filled = np.empty_like(rows[0])
    divided(compute, *rows, filled)
    return np.moveaxis(filled.reshape(moved[0].shape), -1, axis)


@inlined
def _largest(row: Any) -> Any:
    largest = row[0]
    for c in range(row.size):
        largest = larger(largest, row[c])
    return largest


@compiled
def _softmax(rows: Any, out: Any) -> None:
    real = rows.dtype.type
    N, C = rows.shape
    for n in range(N):
        largest, total = _largest(rows[n]), real(0)
        for c in range(C):
            out[n, c] = exponential(rows[n, c] - largest)
            total += out[n, c]
        share = real(1) / total
        for c in range(C):
            out[n, c] *= share


@compiled
def _softmax_backward(out: Any, d_out: Any, d_x: Any) -> None:
    N, C = out.shape
    for n in range(N):
        along = out.dtype.type(0)
        for c in range(C):
            along += d_out[n, c] * out[n, c]
        for c in range(C):
            d_x[n, c] = out[n, c] * (d_out[n, c] - along)


@compiled
def _log_softmax(rows: Any, out: Any) -> None:
    real = rows.dtype.type
    N, C = rows.shape
    for n in range(N):
        largest, total = _largest(rows[n]), real(0)
        for c in range(C):
            out[n, c] = rows[n, c] - largest  # rounded here: next to a large maximum, the logarithm would be lost
            total += exponential(out[n, c])
        logarithm = np.log(total)
        for c in range(C):
            out[n, c] -= logarithm


@compiled
def _log_softmax_backward(out: Any, d_out: Any, d_x: Any) -> None:
    N, C = out.shape
    for n in range(N):
        total = out.dtype.type(0)
        for c in range(C):
            total += d_out[n, c]
        for c in range(C):
            d_x[n, c] = d_out[n, c] - exponential(out[n, c]) * total
