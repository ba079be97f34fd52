"""Draw tokens from logits, on the device that holds the logits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import DivergedError
from tinygrad_chat.inference.options import GenerationOptions, expect_sampling
from tinygrad_chat.inference.processors import keep_min_p, keep_top_k, keep_top_p, penalize

NO_TOKEN = -1
"""The token drawn from logits that are NaN or infinite."""


def probabilities(
    logits: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Collection[int] = (),
) -> Any:
    """Return the probability of each token, (V,) float64, from logits (V,).

    Tokens in `seen` get the `repetition_penalty`. `temperature` divides the logits; at 0 the likeliest token has
    probability 1. Then `top_k`, `top_p` and `min_p` filter the tokens, as in `processors`; the rest get 0. Raises
    ConfigError for an option out of range, DivergedError for logits that are NaN or infinite.

    >>> probabilities(np.log([0.5, 0.3, 0.2]), top_p=0.6).round(3)
    array([0.625, 0.375, 0.   ])
    """
    choice = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    expect_sampling(**choice, repetition_penalty=repetition_penalty)
    if not array_module(logits).isfinite(logits.max()):
        raise no_numbers()
    options = GenerationOptions(**choice, repetition_penalty=repetition_penalty)
    return _probabilities(_penalized(logits[None], [seen], options), options)[0]


def no_numbers() -> DivergedError:
    """Return the error for logits that are NaN or infinite."""
    return DivergedError("the model's logits are NaN or infinite; use an earlier checkpoint")


def _penalized(logits: Any, seen: Sequence[Collection[int]], options: GenerationOptions) -> Any:
    """Return logits (B, V) with the repetition penalty on each row's `seen` tokens."""
    penalty = options.repetition_penalty
    if penalty == 1:
        return logits
    return array_module(logits).stack([penalize(row, each, penalty) for row, each in zip(logits, seen, strict=True)])


def _probabilities(logits: Any, options: GenerationOptions) -> Any:
    """Return the probabilities (B, V) for logits (B, V)."""
    xp = array_module(logits)
    if options.temperature == 0:
        likeliest = logits.argmax(axis=-1)[:, None]  # the first of equal ones
        return (xp.arange(logits.shape[-1]) == likeliest).astype(np.float64)
    below_largest = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # a temperature near 0: minus infinity, a probability of 0
        kept = xp.exp(below_largest / options.temperature)
    if options.top_k is not None or options.top_p is not None:
        order = xp.argsort(-below_largest, axis=-1, kind="stable")  # slow, so only when needed
        place = xp.arange(len(logits))[:, None], order
        kept[place] = _keep_likeliest(kept[place], options)
    if options.min_p is not None:
        kept = keep_min_p(kept, options.min_p)
    return kept / kept.sum(axis=-1, keepdims=True)


def _keep_likeliest(likeliest: Any, options: GenerationOptions) -> Any:
    if options.top_k is not None:
        likeliest = keep_top_k(likeliest, options.top_k)
    likeliest /= likeliest.sum(axis=-1, keepdims=True)
    return likeliest if options.top_p is None else keep_top_p(likeliest, options.top_p)


def draw_tokens(
    logits: Any, uniform: Sequence[float] | np.ndarray, options: GenerationOptions, seen: Sequence[Collection[int]] = ()
) -> Any:
    """Draw a token for each row of logits (B, V) -> (B,): the one that its number `uniform` in [0, 1) falls on.

    Tokens `seen` in a row get the options' repetition_penalty. If a row's logits are NaN or infinite, its token is
    NO_TOKEN; raising here would have to wait for the device.
    """
    xp = array_module(logits)
    allowed = _penalized(logits, seen, options)
    if options.temperature == 0:
        tokens = allowed.argmax(axis=-1)
    else:
        cumulative = xp.cumsum(_probabilities(allowed, options), axis=-1)
        drawn = xp.asarray(uniform)[:, None] * cumulative[:, -1:]
        tokens = (cumulative <= drawn).sum(axis=-1)
    return xp.where(xp.isfinite(logits.max(axis=-1)), tokens, NO_TOKEN)


def log_probabilities(logits: Any) -> Any:
    """Return the log-softmax of logits, (..., V) float64: the model's own, before any sampling option."""
    xp = array_module(logits)
    below_largest = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return below_largest - xp.log(xp.exp(below_largest).sum(axis=-1, keepdims=True))
