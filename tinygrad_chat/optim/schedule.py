"""Schedules: closures from a step to its learning rate, momentum or weight decay.

Each of `SCHEDULES` rises linearly to `peak` over the first `warmup` steps (step 0 has peak / warmup, step warmup - 1
the peak) and reaches `minimum` at the last of its `steps`. They differ in the decay. With `warmdown` below 1 they stay
at the peak and decay only over that last fraction of the steps after warmup. "constant" does not decay, and "nanochat",
taken from upstream, counts the fraction and the last step differently. All raise ConfigError for values out of range.

>>> rate = linear(peak=1.0, minimum=0.1, warmup=2, steps=5)
>>> [round(rate(step), 2) for step in range(5)]
[0.5, 1.0, 0.7, 0.4, 0.1]
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tinygrad_chat.option import expect

Schedule = Callable[[int], float]
"""step, counted from 0 -> learning rate or another scheduled value"""


def linear(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """Linear decay."""
    return _schedule(peak, minimum, warmup, steps, _late(warmdown, lambda done: 1 - done))


def one_minus_sqrt(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """Decay as 1 - sqrt, fast at first: the cooldown of Haegele et al. (arXiv:2405.18392)."""
    return _schedule(peak, minimum, warmup, steps, _late(warmdown, lambda done: 1 - math.sqrt(done)))


def cosine(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """Decay along half a cosine, slow at both ends (Loshchilov & Hutter, arXiv:1608.03983)."""
    return _schedule(peak, minimum, warmup, steps, _late(warmdown, lambda done: 0.5 + 0.5 * math.cos(math.pi * done)))


def constant(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """No decay; `minimum` and `warmdown` are ignored."""
    return _schedule(peak, peak, warmup, steps, lambda done: 1.0)


def nanochat(*, peak: float, minimum: float, warmup: int, steps: int, warmdown: float = 1.0) -> Schedule:
    """Linear decay, as in nanochat (Karpathy, MIT).

    `warmdown` is a fraction of all steps, and the minimum would be reached one step after the last. If warmup and decay
    overlap, warmup wins.
    """
    _expect_in_range(steps, warmup=warmup, warmdown=warmdown, peak=peak, minimum=minimum)
    length = round(warmdown * steps)

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        left = min(1.0, max(steps - step, 0) / max(length, 1))
        return minimum + (peak - minimum) * left

    return rate


MOMENTUM_WARMUP = 400  # steps


def muon_momentum(*, steps: int, warmdown: float) -> Schedule:
    """nanochat's momentum for Muon: up from 0.85 to 0.97 in 400 steps, down to 0.90 over the last `warmdown` of all.

    The rise wins if both overlap, so in a run of fewer than 400 steps the momentum never falls.
    """
    _expect_in_range(steps, warmdown=warmdown)
    length = round(warmdown * steps)

    def momentum(step: int) -> float:
        if step < MOMENTUM_WARMUP:
            return 0.85 + (0.97 - 0.85) * step / MOMENTUM_WARMUP
        done = min(1.0, max(step - (steps - length), 0) / max(length, 1))
        return 0.97 + (0.90 - 0.97) * done

    return momentum


def cosine_decay(*, peak: float, steps: int) -> Schedule:
    """nanochat's weight decay for Muon: from `peak` along half a cosine to 0 at the step after the last."""
    _expect_in_range(steps, peak=peak)
    return lambda step: peak * (0.5 + 0.5 * math.cos(math.pi * min(step, steps) / steps))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "1-sqrt": one_minus_sqrt,
    "cosine": cosine,
    "constant": constant,
    "nanochat": nanochat,
}

_Shape = Callable[[float], float]
"""progress of the decay, 0 to 1 -> the fraction of peak - minimum that is left, 1 to 0"""


def _expect_in_range(steps: int, *, warmup: int = 0, warmdown: float = 1.0, **rates: float) -> None:
    """Raise ConfigError for a value out of range."""
    expect("schedule: steps", steps, minimum=1)
    expect("schedule: warmup", warmup, minimum=0)
    expect("schedule: warmdown", warmdown, minimum=0, maximum=1)
    for name, rate in rates.items():
        expect(f"schedule: {name}", rate, minimum=0)


def _late(warmdown: float, shape: _Shape) -> _Shape:
    expect("schedule: warmdown", warmdown, above=0, maximum=1)
    return lambda done: shape(max(0.0, done - (1 - warmdown)) / warmdown)


def _schedule(peak: float, minimum: float, warmup: int, steps: int, shape: _Shape) -> Schedule:
    _expect_in_range(steps, warmup=warmup, peak=peak, minimum=minimum)
    top = max(warmup - 1, 0)  # the step that has the peak

    def rate(step: int) -> float:
        if step < top:
            return peak * (step + 1) / warmup
        done = min(1.0, (step - top) / max(steps - 1 - top, 1))
        return minimum + (peak - minimum) * shape(done)

    return rate
