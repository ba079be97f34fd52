"""Gradient clipping (Pascanu et al., arXiv:1211.5063)."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.nn import Parameters
from tinygrad_chat.option import expect


def clip(gradient: Any, limit: float | None) -> Any:
    """Scale a flat gradient down to norm `limit` if its norm is larger (None: leave it); return the norm before."""
    norm = math.sqrt(float(gradient.dot(gradient)))
    if limit is not None and norm > limit:
        gradient *= limit / norm
    return norm


def clip_gradient(parameters: Parameters, limit: float | None) -> Any:
    """Scale the whole gradient down to norm `limit` if its norm is larger (None: leave it); return the norm before.

    On a device the norm is a device array, and nothing synchronises. Raises ConfigError for a limit of 0 or less.
    """
    if limit is not None and not limit > 0:
        expect("clip_gradient: limit", limit, above=0)
    return parameters.kernel_of(clip)(parameters.gradient, limit)
