"""Rotary pairs slowed down, for a context longer than the one that a model has learned with. Standard library only.

A pair that turns often in the original context tells close positions apart and stays as it is; one that does not get
round once has never shown what lies beyond and is slowed down in full; those between are slowed down in part.
"""

from __future__ import annotations

import math

FAST_TURNS = {"llama3": 4.0, "yarn": 32.0}
"""How often a pair turns in the original context that is not slowed down, where nobody says otherwise."""


def pair_scales(
    scaling: str, head_width: int, *, base: float, factor: float, context: int, slow: float, fast: float
) -> list[float]:
    """Return what the frequency of each of the D / 2 pairs of a head is multiplied by.

    `context` is the original one; a pair that turns `slow` times in it, or less, is slowed down by the `factor`, one
    that turns `fast` times stays as it is.

    >>> pair_scales("linear", 4, base=10000.0, factor=2.0, context=8, slow=1.0, fast=4.0)
    [0.5, 0.5]
    """
    pairs = range(head_width // 2)
    match scaling:
        case "linear":  # Chen et al., arXiv:2306.15595
            kept = [0.0 for _ in pairs]
        case "llama3":  # Llama 3.1, arXiv:2407.21783: as its number of turns lies between slow and fast
            turns = [context / (2 * math.pi) * base ** (-2 * pair / head_width) for pair in pairs]
            kept = [_within((each - slow) / (fast - slow)) for each in turns]
        case "yarn":  # Peng et al., arXiv:2309.00071: as its number lies between those of the pairs that turn so often
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
