"""Logits processors: functions on arrays of either back end, applied before a token is drawn, in this order.

    1. forbid             tokens that may not come next                    logits (..., V) -> logits (..., V)
    2. penalize           tokens that occurred before                      logits (V,) -> logits (V,)
    3. temperature        see `sampler.probabilities`                      logits (B, V) -> probabilities (B, V)
    4. keep_top_k, keep_top_p                                              likeliest (B, V) -> likeliest (B, V)
    5. keep_min_p                                                          probabilities (B, V) -> probabilities (B, V)

`keep_top_k`, `keep_top_p` and `keep_min_p` each set to 0 what they rule out among the tokens that are left. The first
two take probabilities in descending order, `keep_min_p` in any order.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from tinygrad_chat.backend import array_module


def forbid(logits: Any, tokens: Collection[int]) -> Any:
    """Return logits (..., V) with those of `tokens` at minus infinity, so that none of them can be drawn."""
    return _with(logits, tokens, lambda known: known * 0 - math.inf) if tokens else logits


def penalize(logits: Any, tokens: Collection[int], penalty: float) -> Any:
    """Return logits (V,) with those of `tokens` divided by the penalty (Keskar et al., CTRL, arXiv:1909.05858).

    A negative logit is multiplied by it instead: division would make the token likelier. A token is penalised once,
    however often it occurred.
    """
    if penalty == 1 or not tokens:
        return logits
    xp = array_module(logits)
    return _with(logits, tokens, lambda known: xp.where(known > 0, known / penalty, known * penalty))


def _with(logits: Any, tokens: Collection[int], change: Any) -> Any:
    """Return a copy of the logits with `change` applied to those of the tokens."""
    changed = logits.copy()
    index = array_module(logits).asarray(sorted(set(tokens)))
    changed[..., index] = change(changed[..., index])
    return changed


def keep_top_k(likeliest: Any, count: int) -> Any:
    """Keep the `count` likeliest tokens."""
    xp = array_module(likeliest)
    return xp.where(xp.arange(likeliest.shape[-1]) < count, likeliest, 0)


def keep_top_p(likeliest: Any, share: float) -> Any:
    """Keep the fewest likeliest tokens that sum to at least `share` (Holtzman et al., arXiv:1904.09751)."""
    xp = array_module(likeliest)
    before = xp.cumsum(likeliest, axis=-1) - likeliest
    return xp.where(before >= share, 0, likeliest)


def keep_min_p(probabilities: Any, part: float) -> Any:
    """Keep tokens at least `part` times as likely as the likeliest (Nguyen et al., arXiv:2407.01082)."""
    least = part * probabilities.max(axis=-1, keepdims=True)
    return array_module(probabilities).where(probabilities < least, 0, probabilities)
