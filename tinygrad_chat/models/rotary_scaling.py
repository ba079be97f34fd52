"""Rotary frequencies scaled down for a context longer than the model was trained with. Standard library only.

A pair that turns often within the original context tells nearby positions apart and is left as it is. One that does
not complete a turn would reach angles unseen in training, and is slowed down by the full factor. Pairs in between are
slowed down in part.
"""

from __future__ import annotations

import math

FAST_TURNS = {"llama3": 4.0, "yarn": 32.0}
"""Default number of turns within the original context from which a pair is not slowed down."""


def pair_scales(
    scaling: str, head_width: int, *, base: float, factor: float, context: int, slow: float, fast: float
) -> list[float]:
    """Return the factor of each frequency, for the D / 2 pairs of a head.

    `context` is the original one. A pair that turns at most `slow` times in it is slowed down by the `factor`; one
    that turns at least `fast` times is left as it is.

    >>> pair_scales("linear", 4, base=10000.0, factor=2.0, context=8, slow=1.0, fast=4.0)
    [0.5, 0.5]
    """
    pairs = range(head_width // 2)
    match scaling:
        case "linear":  # Chen et al., arXiv:2306.15595
            kept = [0.0 for _ in pairs]
        case "llama3":  # Llama 3.1, arXiv:2407.21783: interpolates by the number of turns, from slow to fast
            turns = [context / (2 * math.pi) * base ** (-2 * pair / head_width) for pair in pairs]
            kept = [_within((each - slow) / (fast - slow)) for each in turns]
        case "yarn":  # Peng et al., arXiv:2309.00071: interpolates by the pair's index instead
            fastest, slowest = (
                head_width * math.log(context / (2 * math.pi * turns)) / (2 * math.log(base)) for turns in (fast, slow)
            )
            first, last = max(math.floor(fastest), 0), min(math.ceil(slowest), head_width - 1)
            kept = [1 - _within((pair - first) / (last - first or 0.001)) for pair in pairs]
        case _:
            kept = [1.0 for _ in pairs]
    return [share + (1 - share) / factor for share in kept]


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0)
