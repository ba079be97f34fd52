"""Choosing one token from its logits."""

from __future__ import annotations

import numpy as np

from tinygrad_chat.errors import DivergedError
from tinygrad_chat.inference.options import expect_sampling


def probabilities(
    logits: np.ndarray, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> np.ndarray:
    """Return the probability of each token, (V,) float64, from logits (V,).

    `temperature` divides the logits; at 0 all is on the likeliest token. `top_k` keeps that many likeliest tokens, then
    `top_p` the fewest likeliest whose probabilities sum to at least that (Holtzman et al., arXiv:1904.09751); the
    others get 0. Raises ConfigError for an option out of range, DivergedError for logits that are no numbers.

    >>> probabilities(np.log([0.5, 0.3, 0.2]), top_p=0.6).round(3)
    array([0.625, 0.375, 0.   ])
    """
    expect_sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    if not np.isfinite(np.max(logits)):
        raise DivergedError("the model's logits are NaN or infinite; use an earlier checkpoint")
    below_largest = np.asarray(logits, np.float64) - np.max(logits)
    order = np.argsort(-below_largest, kind="stable")  # of equal tokens the first comes first
    if temperature == 0:
        top_k, temperature = 1, 1.0
    with np.errstate(over="ignore"):  # next to no temperature: minus infinity, a probability of 0
        likeliest = np.exp(below_largest[order] / temperature)
    if top_k is not None:
        likeliest[top_k:] = 0
    likeliest /= likeliest.sum()
    if top_p is not None:
        before = np.cumsum(likeliest) - likeliest
        likeliest[before >= top_p] = 0
        likeliest /= likeliest.sum()
    result = np.empty_like(likeliest)
    result[order] = likeliest
    return result


def sample_token(logits: np.ndarray, random: np.random.Generator, **options: float | int | None) -> int:
    """Draw a token with the `probabilities` of its logits (V,) under the same options."""
    cumulative = np.cumsum(probabilities(logits, **options))  # pyright: ignore[reportArgumentType]
    return int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
