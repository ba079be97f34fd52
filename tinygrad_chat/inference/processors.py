"""What stands between a model's logits and a draw: functions over arrays of either back end, in this order.

    1. forbid             tokens that may not come                         logits (..., V) -> logits (..., V)
    2. penalize           tokens that came before                          logits (V,) -> logits (V,)
    3. temperature        see `sampler.probabilities`                      logits (B, V) -> probabilities (B, V)
    4. keep_top_k, keep_top_p                                              likeliest (B, V) -> likeliest (B, V)
    5. keep_min_p                                                          probabilities (B, V) -> probabilities (B, V)

Each of the last three puts 0 in place of what it rules out, of what the one before it has left. The first two of them
take probabilities in their order, the likeliest first; for the third any order does.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from tinygrad_chat.backend import array_module


def forbid(logits: Any, tokens: Collection[int]) -> Any:
    """Return logits (..., V) with which none of `tokens` can be drawn."""
    return _with(logits, tokens, lambda known: known * 0 - math.inf) if tokens else logits


def penalize(logits: Any, tokens: Collection[int], penalty: float) -> Any:
    """Return logits (V,) with those of `tokens` divided by the penalty (Keskar et al., CTRL, arXiv:1909.05858).

    A logit below 0 is multiplied by it instead: a division would make the token likelier. A token counts once, however
    often it came.
    """
    if penalty == 1 or not tokens:
        return logits
    xp = array_module(logits)
    return _with(logits, tokens, lambda known: xp.where(known > 0, known / penalty, known * penalty))


def _with(logits: Any, tokens: Collection[int], change: Any) -> Any:
    """Return a copy of the logits in which those of the tokens are changed."""
    changed = logits.copy()
    index = array_module(logits).asarray(sorted(set(tokens)))
    changed[..., index] = change(changed[..., index])
    return changed


def keep_top_k(likeliest: Any, count: int) -> Any:
    """Keep the `count` likeliest."""
    xp = array_module(likeliest)
    return xp.where(xp.arange(likeliest.shape[-1]) < count, likeliest, 0)


def keep_top_p(likeliest: Any, share: float) -> Any:
    """Keep the fewest likeliest that sum to at least `share` (Holtzman et al., arXiv:1904.09751)."""
    xp = array_module(likeliest)
    before = xp.cumsum(likeliest, axis=-1) - likeliest
    return xp.where(before >= share, 0, likeliest)


def keep_min_p(probabilities: Any, part: float) -> Any:
    """Keep those at least `part` as likely as the likeliest (Nguyen et al., arXiv:2407.01082)."""
    least = part * probabilities.max(axis=-1, keepdims=True)
    return array_module(probabilities).where(probabilities < least, 0, probabilities)
