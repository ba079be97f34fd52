"""Rotary position embedding (Su et al., RoFormer, arXiv:2104.09864)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.ops.normalization import sum_rows


def rotary_angles(
    positions: int, head_width: int, *, base: float = 10000.0, scales: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine, each (T, D / 2), of the angle by which pair d is rotated at position t: t * base^(-2 d / D),
    times scales[d] if given."""
    frequencies = base ** (-np.arange(0, head_width, 2) / head_width)
    if scales is not None:
        frequencies = frequencies * scales
    angles = np.outer(np.arange(positions), frequencies)
    return np.cos(angles), np.sin(angles)


def check_angles(x: Any, gain: Any, cosine: Any, sine: Any) -> None:
    """Raise ShapeError unless cosine and sine (T, D / 2) fit x (..., T, H D), and `gain`, if given, its heads."""
    T, half = cosine.shape
    if half == 0:
        raise ShapeError(f"rotary: expected angles of at least 1 pair of channels, received cosine {cosine.shape}")
    if x.shape[-2] != T or x.shape[-1] % (2 * half) or sine.shape != cosine.shape:
        raise ShapeError(
            f"rotary: angles {cosine.shape} need x (..., {T}, a multiple of {2 * half}), received {x.shape}"
        )
    if gain is not None and gain.shape != (2 * half,):
        raise ShapeError(f"rotary: angles {cosine.shape} need a gain ({2 * half},), received {gain.shape}")


@differentiable
def rotary(x: Any, gain: Any = None, *, cosine: Any, sine: Any, rms: float | None = None, epsilon: float = 1e-5):
    """Rotate each pair (d, d + D/2) of every head's D channels by the angle of its position.

    x (..., T, H D), heads side by side; cosine and sine (T, D / 2). A rotation preserves lengths, so positions affect
    the product of a query and a key only through their distance. The backward rule rotates the gradient back. With
    `rms` each head is scaled to that root mean square (Henry et al., arXiv:2010.04245), which is the same before or
    after the rotation. A `gain` (D,) then multiplies the channels of each head, before the rotation.
    """
    check_angles(x, gain, cosine, sine)
    D = 2 * cosine.shape[1]
    heads = x.reshape(*x.shape[:-1], x.shape[-1] // D, D)  # (..., T, H, D)
    unit = inverse_rms = None
    if rms is not None:
        inverse_rms = 1 / array_module(x).sqrt((heads * heads).mean(axis=-1, keepdims=True) + epsilon)
        unit = heads * inverse_rms
        heads = unit * rms
    sized = heads
    if gain is not None:
        heads = sized * gain

    def backward(d_out):
        d_heads = _turn(d_out.reshape(heads.shape), cosine, -sine)
        d_gain = None
        if gain is not None:
            d_gain = sum_rows(d_heads * sized)
            d_heads = d_heads * gain
        if rms is not None:  # as in rmsnorm
            d_unit = d_heads * rms
            d_heads = inverse_rms * (d_unit - unit * (d_unit * unit).mean(axis=-1, keepdims=True))
        return d_heads.reshape(x.shape), d_gain

    return _turn(heads, cosine, sine).reshape(x.shape), backward


def _turn(heads: Any, cosine: Any, sine: Any) -> Any:
    half = cosine.shape[1]
    first, second = heads[..., :half], heads[..., half:]
    cosine, sine = cosine[:, None], sine[:, None]
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return array_module(heads).concatenate(turned, axis=-1)
