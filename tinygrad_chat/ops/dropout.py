"""Dropout (Srivastava et al., 2014)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.option import expect


def uniform(xp: Any, seed: int, start: int, count: int) -> Any:
    """Return `count` random numbers in [0, 1), beginning with the `start`-th of the sequence of `seed`.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which can compute each number on its own; the upper 24 bits are
    used.
    """
    z = xp.arange(start + 1, start + count + 1, dtype=xp.uint64) * 0x9E3779B97F4A7C15 + int(seed)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return ((z ^ (z >> 31)) >> 40).astype(xp.float32) * 2.0**-24


def scale_of_kept(rate: float, seed: Any, offset: Any) -> float:
    """Return the factor that preserves the mean when a share `rate` is dropped; raise ConfigError out of range.

    A seed and an offset in a device's memory are not looked at: the host would have to wait.
    """
    expect("dropout: rate", rate, minimum=0, maximum=1)
    if array_module(seed) is np and not 0 <= seed < 2**64:
        raise ConfigError(f"dropout: seed: expected 0 to 2**64 - 1, received {seed}")
    if array_module(offset) is np:
        expect("dropout: offset", offset, minimum=0)
    return 1 / (1 - rate) if rate < 1 else 0.0


@differentiable
def dropout(x: Any, *, rate: float, seed: Any, offset: Any = 0):
    """Set each element to 0 with probability `rate` and scale the others by 1 / (1 - rate), which preserves the mean.

    Which elements are dropped is a pure function of `seed` and of `offset`, the number of elements of the whole array
    before x. So a step can be repeated exactly, in one piece or in several, on any back end. At a rate of 1 everything
    is dropped. On a device seed and offset may be arrays of no axes, which the kernel reads. Raises ConfigError for a
    rate that is not a probability and a seed that does not fit in 64 bits.
    """
    scale = scale_of_kept(rate, seed, offset)
    kept = uniform(array_module(x), seed, offset, x.size).reshape(x.shape) >= rate

    def backward(d_out):
        return (d_out * kept * scale,)

    return x * kept * scale, backward
