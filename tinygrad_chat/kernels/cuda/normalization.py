"""Normalisation: one kernel forward, one backward, and one that adds up what each block has summed over its rows for
the gradients of gain and bias. Rows that are not kept in registers need another kernel for these sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous, launch, per_thread, per_warp, width
from tinygrad_chat.kernels.cuda.pending import PendingTerm
from tinygrad_chat.kernels.cuda.sums import PendingSums, chunks_of
from tinygrad_chat.ops.normalization import check_row_vector, check_same_shape

FILE = "normalization.cu"
MAX_HELD = 1024  # columns of a row in registers, as in the file


def layernorm(x: Any, gain: Any, bias: Any = None, *, epsilon: float = 1e-5):
    """`ops.layernorm`, saving two numbers per row."""
    (_, out), backward = _normalization("layernorm", x, None, gain, bias, epsilon, centred=True)

    def norm_backward(d_out: Any):
        d_x, _, d_gain, d_bias = backward(None, d_out)
        return d_x, d_gain, d_bias

    return out, norm_backward


def rmsnorm(x: Any, gain: Any = None, *, epsilon: float = 1e-5):
    """`ops.rmsnorm`: layernorm's maths with a mean of 0."""
    (_, out), backward = _normalization("rmsnorm", x, None, gain, None, epsilon, centred=False)

    def norm_backward(d_out: Any):
        if gain is None:
            return PendingTerm(lambda d_total: backward(d_total, d_out)[0], x.shape), None
        d_x, _, d_gain, _ = backward(None, d_out)
        return d_x, d_gain

    return out, norm_backward


def add_layernorm(x: Any, branch: Any, gain: Any, bias: Any = None, *, epsilon: float = 1e-5):
    """`ops.add_layernorm`, with the sum in the same pass."""
    return _normalization("add_layernorm", x, branch, gain, bias, epsilon, centred=True)


def add_rmsnorm(x: Any, branch: Any, gain: Any = None, *, epsilon: float = 1e-5):
    """`ops.add_rmsnorm`, with the sum in the same pass."""
    outs, backward = _normalization("add_rmsnorm", x, branch, gain, None, epsilon, centred=False)
    return outs, lambda d_total, d_out: backward(d_total, d_out)[:3]


def _normalization(name: str, x: Any, branch: Any, gain: Any, bias: Any, epsilon: float, *, centred: bool):
    """Return (total, out) and their backward rule, for all four ops: without a branch the total is x."""
    check_row_vector(name, "gain", gain, x)
    check_row_vector(name, "bias", bias, x)
    xp, real, C, epsilon = array_module(x), x.dtype, x.shape[-1], float(epsilon)
    x, added = contiguous(x, real), None
    gain, bias = (None if vector is None else contiguous(vector, real) for vector in (gain, bias))
    if branch is not None:
        check_same_shape(name, x, branch)
        branch, added = contiguous(branch, real), xp.empty_like(x)
    total = x if added is None else added
    out, N = xp.empty_like(x), x.size // max(C, 1)
    statistics = xp.empty((N, 2), np.float32)
    wide = width(C, x, branch, gain, bias, added, out) > 1
    arrays = x, branch, gain, bias, added, out, statistics
    launch(FILE, "normalize", real, per_warp(N), *arrays, N, C, epsilon, centred, wide)

    def backward(d_total: Any, d_out: Any):
        if d_out is None:
            return d_total, d_total, None, None
        d_out, d_x = contiguous(d_out, real), xp.empty_like(x)
        d_total = None if d_total is None else contiguous(d_total, real)
        wide = width(C, total, gain, d_total, d_out, d_x) > 1
        arrays = total, gain, statistics, d_total, d_out, d_x
        if gain is None:
            launch(FILE, "normalize_backward", real, per_warp(N), *arrays, N, C, centred, wide)
            return d_x, d_x, None, None
        partial = xp.empty((chunks_of(N), 2, C), np.float32)
        if wide and C <= MAX_HELD:
            blocks = len(partial)
            launch(FILE, "normalize_backward_with_columns", real, blocks, *arrays, partial, N, C, centred)
        else:
            launch(FILE, "normalize_backward", real, per_warp(N), *arrays, N, C, centred, wide)
            grid = per_thread(C), len(partial)
            launch(FILE, "normalize_backward_columns", real, grid, total, statistics, d_out, partial, N, C)
        d_gain, d_bias = (PendingSums(partial[:, i], real) for i in (0, 1))
        return d_x, d_x, d_gain, None if bias is None else d_bias

    return (total, out), backward
