"""Gradient clipping (Pascanu et al., arXiv:1211.5063)."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.nn import Parameters
from tinygrad_chat.option import expect


def clip_scale(norm: float, limit: float | None) -> float:
    """Return the factor that scales a gradient of this norm down to norm `limit` if its norm is larger, else 1.

    Without a limit it is 1. If the norm is not finite, the factor is NaN.
    """
    if not math.isfinite(norm):
        return math.nan
    return limit / norm if limit is not None and norm > limit else 1.0


def norm_and_scale(gradient: Any, limit: float | None) -> tuple[Any, Any]:
    """Return a flat gradient's norm and its `clip_scale`; the gradient does not change."""
    norm = math.sqrt(float(gradient.dot(gradient)))
    return norm, clip_scale(norm, limit)


def measure_gradient(parameters: Parameters, limit: float | None) -> tuple[Any, Any]:
    """Return the whole gradient's norm and its `clip_scale`, by the kernel that the parameters' back end has for them.

    On a device both are device arrays, and nothing synchronises. Raises ConfigError for a limit of 0 or less.
    """
    if limit is not None and not limit > 0:
        expect("clip_gradient: limit", limit, above=0)
    return parameters.kernel_of(norm_and_scale)(parameters.gradient, limit)


def clip_gradient(parameters: Parameters, limit: float | None) -> Any:
    """Scale the whole gradient down to norm `limit` if its norm is larger (None: leave it); return the norm before.

    `TrainStep` scales within the optimiser's update instead, if on a device. Otherwise as `measure_gradient`.
    """
    norm, scale = measure_gradient(parameters, limit)
    if not isinstance(scale, float) or scale < 1:
        parameters.gradient *= scale
    return norm
