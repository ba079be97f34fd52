"""Gradient clipping (Pascanu et al., arXiv:1211.5063)."""

from __future__ import annotations

import math

from tinygrad_chat.nn import Parameters


def clip_gradient(parameters: Parameters, limit: float | None) -> float:
    """Scale the whole gradient down to the norm `limit` if it is longer (None: leave it); return its norm before."""
    gradient = parameters.gradient
    norm = math.sqrt(float(gradient.dot(gradient)))
    if limit is not None and norm > limit:
        gradient *= limit / norm
    return norm
