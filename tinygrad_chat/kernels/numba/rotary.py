"""Rotary position embedding, a head at a time, with the norm of queries and keys in the same pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_chat.kernels.numba.compilation import compiled, contiguous
from tinygrad_chat.ops.rotary import check_angles


def rotary(
    x: np.ndarray,
    gain: np.ndarray | None = None,
    *,
    cosine: np.ndarray,
    sine: np.ndarray,
    rms: float | None = None,
    epsilon: float = 1e-5,
):
    """`ops.rotary`, saving x and one number per head."""
    check_angles(x, gain, cosine, sine)
    T, half = cosine.shape
    lead, H = math.prod(x.shape[:-2]), x.shape[-1] // (2 * half)
    heads = contiguous(x).reshape(lead, T, H, 2 * half)
    gain = None if gain is None else contiguous(gain)
    angles = tuple(contiguous(angle.astype(x.dtype, copy=False)) for angle in (cosine, sine))
    size = 0.0 if rms is None else rms  # 0: there is no norm, and inverse_rms stays unused
    out, inverse_rms = np.empty_like(heads), np.empty(heads.shape[:3], x.dtype)
    _turn(heads, gain, *angles, size, epsilon, out, inverse_rms)

    def backward(d_out: np.ndarray):
        d_heads, d_x = contiguous(d_out).reshape(heads.shape), np.empty_like(heads)
        d_gain = None if gain is None else np.zeros_like(gain)
        _turn_back(heads, gain, *angles, size, inverse_rms, d_heads, d_x, d_gain)
        return d_x.reshape(x.shape), d_gain

    return out.reshape(x.shape), backward


@compiled
def _turn(
    heads: Any, gain: Any, cosine: Any, sine: Any, rms: float, epsilon: float, out: Any, inverse_rms: Any
) -> None:
    """Rotate each head by the angles of its position and, unless `rms` is 0, scale it to `rms`, writing 1 / its own."""
    real = heads.dtype.type
    B, T, H, D = heads.shape
    half = D // 2
    for b in range(B):
        for t in range(T):
            for h in range(H):
                x, y = heads[b, t, h], out[b, t, h]
                scale = real(1)
                if rms != 0:
                    square = real(0)
                    for d in range(D):
                        square += x[d] * x[d]
                    inverse_rms[b, t, h] = real(1) / np.sqrt(square / real(D) + real(epsilon))
                    scale = real(rms) * inverse_rms[b, t, h]
                for d in range(half):
                    first, second = x[d] * scale, x[d + half] * scale
                    if gain is not None:
                        first *= gain[d]
                        second *= gain[d + half]
                    y[d] = first * cosine[t, d] - second * sine[t, d]
                    y[d + half] = first * sine[t, d] + second * cosine[t, d]


@compiled
def _turn_back(
    heads: Any,
    gain: Any,
    cosine: Any,
    sine: Any,
    rms: float,
    inverse_rms: Any,
    d_heads: Any,
    d_x: Any,
    d_gain: Any,
) -> None:
    """Rotate the gradient back and, unless `rms` is 0, remove its component along the head, as in rmsnorm."""
    real = heads.dtype.type
    B, T, H, D = heads.shape
    half = D // 2
    for b in range(B):
        for t in range(T):
            for h in range(H):
                x, d_y, d = heads[b, t, h], d_heads[b, t, h], d_x[b, t, h]
                for i in range(half):
                    d[i] = d_y[i] * cosine[t, i] + d_y[i + half] * sine[t, i]
                    d[i + half] = d_y[i + half] * cosine[t, i] - d_y[i] * sine[t, i]
                if gain is not None:
                    size = real(rms) * inverse_rms[b, t, h] if rms != 0 else real(1)
                    for i in range(D):
                        d_gain[i] += d[i] * x[i] * size
                        d[i] *= gain[i]
                if rms != 0:
                    inverse = inverse_rms[b, t, h]
                    along = real(0)
                    for i in range(D):
                        along += d[i] * x[i]
                    along *= inverse * inverse / real(D)
                    scale = real(rms) * inverse
                    for i in range(D):
                        d[i] = scale * (d[i] - along * x[i])
