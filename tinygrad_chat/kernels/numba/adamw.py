"""AdamW's update in one pass over memory, divided among threads where there are many weights."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_chat.kernels.numba.compilation import IN_ORDER, compiled, inlined
from tinygrad_chat.kernels.numba.threads import in_threads, threads_for


def adamw_update(
    data: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    scalars: Sequence[float],
    *,
    decayed: int,
    compute_weights: None = None,
    grad_scale: None = None,
) -> None:
    """`optim.adamw.adamw_update`, on the host: no separate compute weights, and a gradient already scaled."""
    arrays = data, gradient, mean, square
    in_threads(lambda part, parts: _update_part(part, parts, *arrays, decayed, *scalars), threads_for(data.size))


@compiled
def _update_part(
    part: int,
    parts: int,
    data: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    decayed: int,
    shrink: float,
    *settings: float,
) -> None:
    first, end = part * data.size // parts, (part + 1) * data.size // parts
    middle = min(max(first, decayed), end)
    for own, factor in ((slice(first, middle), shrink), (slice(middle, end), 1.0)):
        _update(data[own], gradient[own], mean[own], square[own], factor, *settings)


@functools.partial(inlined, arithmetic=IN_ORDER)
def _update(
    data: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    shrink: float,
    rate: float,
    new_share: float,
    new_square_share: float,
    correction: float,
    epsilon: float,
) -> None:
    real = data.dtype.type
    kept, step, tiny = real(shrink), real(rate), real(epsilon)
    share, square_share, scale = real(new_share), real(new_square_share), real(correction)
    square_kept = real(1 - new_square_share)
    for i in range(data.size):
        g = gradient[i]
        mean[i] += share * (g - mean[i])
        square[i] = square[i] * square_kept + (square_share * g) * g
        data[i] = data[i] * kept - step * mean[i] / (np.sqrt(square[i]) * scale + tiny)
