"""Choosing one token from its logits, on the device that they are on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import DivergedError
from tinygrad_chat.inference.options import GenerationOptions, expect_sampling
from tinygrad_chat.inference.processors import keep_min_p, keep_top_k, keep_top_p, penalize

NO_TOKEN = -1
"""What is drawn from logits that are no numbers."""


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

    Tokens `seen` before get the `repetition_penalty`. `temperature` divides the logits; at 0 all is on the likeliest
    token. Then `top_k`, `top_p` and `min_p` keep some tokens, as in `processors`; the others get 0. Raises ConfigError
    for an option out of range, DivergedError for logits that are no numbers.

    >>> probabilities(np.log([0.5, 0.3, 0.2]), top_p=0.6).round(3)
    array([0.625, 0.375, 0.   ])
    """
    choice = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    expect_sampling(**choice, repetition_penalty=repetition_penalty)
    if not array_module(logits).isfinite(logits.max()):
        raise no_numbers()
    return _probabilities(logits, GenerationOptions(**choice, repetition_penalty=repetition_penalty), seen)


def no_numbers() -> DivergedError:
    """Return the error for a token drawn from logits that are no numbers."""
    return DivergedError("the model's logits are NaN or infinite; use an earlier checkpoint")


def _probabilities(logits: Any, options: GenerationOptions, seen: Collection[int]) -> Any:
    xp = array_module(logits)
    logits = penalize(logits, seen, options.repetition_penalty)
    if options.temperature == 0:
        return (xp.arange(len(logits)) == logits.argmax()).astype(np.float64)  # of equal tokens the first
    below_largest = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore"):  # next to no temperature: minus infinity, a probability of 0
        kept = xp.exp(below_largest / options.temperature)
    if options.top_k is not None or options.top_p is not None:
        order = xp.argsort(-below_largest, kind="stable")  # slow, so only where it is needed
        kept[order] = _keep_likeliest(kept[order], options)
    if options.min_p is not None:
        kept = keep_min_p(kept, options.min_p)
    return kept / kept.sum()


def _keep_likeliest(likeliest: Any, options: GenerationOptions) -> Any:
    if options.top_k is not None:
        likeliest = keep_top_k(likeliest, options.top_k)
    likeliest /= likeliest.sum()
    return likeliest if options.top_p is None else keep_top_p(likeliest, options.top_p)


def draw_token(logits: Any, uniform: float, options: GenerationOptions, seen: Collection[int] = ()) -> Any:
    """Return the token, an array () beside the logits (V,), that a number `uniform` in [0, 1) falls on.

    Where the logits are no numbers it is NO_TOKEN: to look at them would be to wait for the device.
    """
    xp = array_module(logits)
    cumulative = xp.cumsum(_probabilities(logits, options, seen))
    token = xp.searchsorted(cumulative, uniform * cumulative[-1:], side="right")[0]
    return xp.where(xp.isfinite(logits.max()), token, NO_TOKEN)


def log_probabilities(logits: Any) -> Any:
    """Return the logarithm of each token's probability, (V,) float64, as the model has it: before any option."""
    xp = array_module(logits)
    below_largest = logits.astype(np.float64) - logits.max()
    return below_largest - xp.log(xp.exp(below_largest).sum())
