"""Dropout (Srivastava et al., 2014)."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module


@differentiable
def dropout(x: Any, *, rate: float, seed: int, passed: int = 0):
    """Set each element to 0 with probability `rate` and scale the others by 1 / (1 - rate), so the mean stays.

    Which elements fall is a pure function of `seed` and of how many elements of the whole were `passed` before x, so a
    step can be repeated exactly, in one piece or in several.
    """
    xp = array_module(x)
    drawn = xp.random.default_rng(seed).random(passed + x.size, dtype=xp.float32)[passed:]
    kept = drawn.reshape(x.shape) >= rate
    scale = 1 / (1 - rate)

    def backward(d_out):
        return (d_out * kept * scale,)

    return x * kept * scale, backward
