"""Rotary pairs slowed down, for a context longer than the one that a model has learned with. Standard library only.

A pair that turns often in the original context tells close positions apart and stays as it is; one that does not get
round once has never shown what lies beyond and is slowed down in full; those between are slowed down in part.
"""

from __future__ import annotations

import math

from tinygrad_chat.models.options import FAST_TURNS, ModelOptions


def pair_scales(options: ModelOptions) -> list[float]:
    """Return what the frequency of each of the D / 2 pairs of a head is multiplied by.

    >>> pair_scales(ModelOptions(positions="rotary", head_width=4, rotary_scaling="linear", rotary_factor=2.0))
    [0.5, 0.5]
    """
    pairs = range(options.head_channels // 2)
    match options.rotary_scaling:
        case "linear":  # Chen et al., arXiv:2306.15595
            kept = [0.0 for _ in pairs]
        case "llama3":
            kept = [_kept_by_turns(pair, options) for pair in pairs]
        case "yarn":
            kept = [_kept_by_place(pair, options) for pair in pairs]
        case _:
            kept = [1.0 for _ in pairs]
    return [share + (1 - share) / options.rotary_factor for share in kept]


def attention_factor(options: ModelOptions) -> float:
    """Return what turned queries and keys are multiplied by: YaRN sharpens attention (Peng et al., arXiv:2309.00071)."""
    if options.rotary_scaling != "yarn":
        return 1.0
    return options.rotary_attention_factor or 1 + math.log(options.rotary_factor) / 10


def _kept_by_turns(pair: int, options: ModelOptions) -> float:
    """Return how much of a pair's frequency is kept, from 0 to 1: as its number of turns lies between slow and fast
    (Llama 3.1, arXiv:2407.21783)."""
    slow, fast = _turns(options)
    radians = _original_context(options) * options.rotary_base ** (-2 * pair / options.head_channels)
    return _within((radians / (2 * math.pi) - slow) / (fast - slow))


def _kept_by_place(pair: int, options: ModelOptions) -> float:
    """Return the same as the pair's number lies between those of the pairs that turn fast and slow (YaRN)."""
    D, base = options.head_channels, options.rotary_base
    slow, fast = (  # the pairs that turn so often in the original context
        D * math.log(_original_context(options) / (2 * math.pi * turns)) / (2 * math.log(base))
        for turns in _turns(options)
    )
    first, last = max(math.floor(fast), 0), min(math.ceil(slow), D - 1)
    return 1 - _within((pair - first) / (last - first if last != first else 0.001))


def _turns(options: ModelOptions) -> tuple[float, float]:
    return options.rotary_slow_turns, options.rotary_fast_turns or FAST_TURNS[options.rotary_scaling]


def _original_context(options: ModelOptions) -> float:
    return options.rotary_original_context or options.context / options.rotary_factor


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0)
