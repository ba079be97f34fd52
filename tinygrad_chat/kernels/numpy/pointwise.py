"""Functions of one number, in slices that stay in the processor's cache between one pass and the next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinygrad_chat.ops.pointwise import GELU_CUBIC, GELU_SCALE

SLICE = 1 << 14  # elements: a few arrays of this length fit in a core's L2


def _slices(size: int) -> Iterator[slice]:
    return (slice(start, start + SLICE) for start in range(0, size, SLICE))


def gelu(x: np.ndarray):
    """`ops.gelu` in place: x * (1 + t) / 2 with t = tanh(scale * (x + cubic * x^3))."""
    flat = x.reshape(-1)
    t, out = np.empty_like(flat), np.empty_like(flat)
    for part in _slices(flat.size):
        x_part, t_part, out_part = flat[part], t[part], out[part]
        np.multiply(x_part, x_part, out=t_part)
        t_part *= GELU_SCALE * GELU_CUBIC
        t_part += GELU_SCALE
        t_part *= x_part
        np.tanh(t_part, out=t_part)
        np.multiply(x_part, 0.5, out=out_part)
        out_part += out_part * t_part

    def backward(d_out: np.ndarray):
        # gelu'(x) = (1 + t) / 2 * (1 + (1 - t) * x * scale * (1 + 3 * cubic * x^2)), as 1 - t^2 = (1 + t) * (1 - t)
        d_flat = d_out.reshape(-1)
        d_x = np.empty_like(flat)
        for part in _slices(flat.size):
            x_part, t_part, slope = flat[part], t[part], d_x[part]
            np.multiply(x_part, x_part, out=slope)
            slope *= 3 * GELU_SCALE * GELU_CUBIC
            slope += GELU_SCALE
            slope *= x_part
            slope *= 1 - t_part
            slope += 1
            slope *= 0.5 * t_part + 0.5
            slope *= d_flat[part]
        return (d_x.reshape(x.shape),)

    return out.reshape(x.shape), backward
