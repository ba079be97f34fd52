"""Dropout (Srivastava et al., 2014)."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module


@differentiable
def dropout(x: Any, *, rate: float, seed: int):
    """Set each element to 0 with probability `rate` and scale the others by 1 / (1 - rate), so the mean stays.

    Which elements fall is a pure function of `seed` and the shape, so a step can be repeated exactly.
    """
    xp = array_module(x)
    kept = xp.random.default_rng(seed).random(x.shape, dtype=xp.float32) >= rate
    scale = 1 / (1 - rate)

    def backward(d_out):
        return (d_out * kept * scale,)

    return x * kept * scale, backward
