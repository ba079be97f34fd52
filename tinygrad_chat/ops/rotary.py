"""Rotary position embedding (Su et al., RoFormer, arXiv:2104.09864)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError


def rotary_angles(positions: int, head_width: int, *, base: float = 10000.0) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine, each (T, D / 2), of the angle that pair d is turned by at position t: t * base^(-2 d / D)."""
    frequencies = base ** (-np.arange(0, head_width, 2) / head_width)
    angles = np.outer(np.arange(positions), frequencies)
    return np.cos(angles), np.sin(angles)


@differentiable
def rotary(x: Any, *, cosine: Any, sine: Any):
    """Turn each pair (d, d + D/2) of every head's D channels by its position's angle.

    x (..., T, H D), heads side by side; cosine and sine (T, D / 2). A turn keeps lengths, so queries and keys then meet
    at an angle that depends on their distance alone. The backward rule turns the gradient back.
    """
    T, half = cosine.shape
    if x.shape[-2] != T or x.shape[-1] % (2 * half):
        raise ShapeError(
            f"rotary: angles {cosine.shape} need x (..., {T}, a multiple of {2 * half}), received {x.shape}"
        )

    def backward(d_out):
        return (_turn(d_out, cosine, -sine),)

    return _turn(x, cosine, sine), backward


def _turn(x: Any, cosine: Any, sine: Any) -> Any:
    heads = x.reshape(*x.shape[:-1], -1, 2, cosine.shape[-1])
    first, second = heads[..., 0, :], heads[..., 1, :]  # (..., T, H, D / 2)
    cosine, sine = cosine[:, None], sine[:, None]
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return array_module(x).stack(turned, axis=-2).reshape(x.shape)
