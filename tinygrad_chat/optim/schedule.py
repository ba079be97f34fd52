"""Learning-rate schedules: closures from a step to its learning rate.

Every schedule climbs evenly to `peak` over the first `warmup` steps (step 0 has peak / warmup already, step
warmup - 1 has the peak) and is at `minimum` at the last of its `steps`. They differ in the way down. Those that take
`warmdown` stay at the peak and come down over that last share of what follows the warm-up.

>>> rate = linear(peak=1.0, minimum=0.1, warmup=2, steps=5)
>>> [round(rate(step), 2) for step in range(5)]
[0.5, 1.0, 0.7, 0.4, 0.1]
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""step, counted from 0 -> learning rate"""


def linear(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """Down in a straight line."""
    return _schedule(peak, minimum, warmup, steps, _late(warmdown, lambda done: 1 - done))


def one_minus_sqrt(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """Down as 1 - sqrt, fast first: the cool-down of Haegele et al. (arXiv:2405.18392)."""
    return _schedule(peak, minimum, warmup, steps, _late(warmdown, lambda done: 1 - math.sqrt(done)))


def cosine(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """Down along half a cosine, slow at both ends (Loshchilov & Hutter, arXiv:1608.03983)."""
    return _schedule(peak, minimum, warmup, steps, _late(warmdown, lambda done: 0.5 + 0.5 * math.cos(math.pi * done)))


def constant(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """Not down at all; `minimum` and `warmdown` play no part."""
    return _schedule(peak, peak, warmup, steps, lambda done: 1.0)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "1-sqrt": one_minus_sqrt,
    "cosine": cosine,
    "constant": constant,
}

_Shape = Callable[[float], float]
"""the share of the way down that is done, 0 to 1 -> how much of peak - minimum is left, 1 to 0"""


def _late(warmdown: float, shape: _Shape) -> _Shape:
    return lambda done: shape(max(0.0, done - (1 - warmdown)) / warmdown)


def _schedule(peak: float, minimum: float, warmup: int, steps: int, shape: _Shape) -> Schedule:
    top = max(warmup - 1, 0)  # the step that has the peak

    def rate(step: int) -> float:
        if step < top:
            return peak * (step + 1) / warmup
        done = min(1.0, (step - top) / max(steps - 1 - top, 1))
        return minimum + (peak - minimum) * shape(done)

    return rate
