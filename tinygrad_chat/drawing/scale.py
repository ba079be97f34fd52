"""Axes: where a value stands on one, and the round numbers of its ticks.

Values are 0 or, in magnitude, between TINY and HUGE: a range of others cannot be computed with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tinygrad_chat.formatting import short_number

TINY, HUGE = 1e-290, 1e300
SIZES = (1, 2, 5, 10, 20)  # a step between ticks is one of these times a power of ten
MANTISSAS = ((1, 2, 5), (1, 3), (1,))  # of ticks on a logarithmic axis, the densest first
UNITS = ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))  # from which value, divisor, letter
WIDE = 8  # ticks that differ by more than this factor are each written as short as possible
ROOM = 0.05  # how far a range without width is widened, as a share of its value


@dataclass(frozen=True)
class Scale:
    """An axis from the value `low` to `high`, drawn from `start` to `end` in pixels; `log` spaces factors evenly."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands, in pixels.

        >>> Scale(1, 100, 0, 50, log=True).place(10)
        25.0
        """
        low, high = self._spaced(self.low), self._spaced(self.high)
        return self.start + (self._spaced(value) - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int, *, whole: bool = False) -> list[float]:
        """Return at most `most` round numbers on the axis, in ascending order; with `whole`, no fractions.

        >>> Scale(0.8, 4.6, 0, 1).ticks(6), Scale(0.8, 700, 0, 1, log=True).ticks(6)
        ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 10.0, 30.0, 100.0, 300.0])
        """
        return (self._log_ticks(most) if self.log else []) or _round_numbers(self.low, self.high, most, whole=whole)

    def _log_ticks(self, most: int) -> list[float]:
        """Return round factors, for a wide range only every few powers of ten; none if the range is too narrow."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks: list[float] = []
        for mantissas in MANTISSAS:
            found = [float(f"{mantissa}e{power}") for power in powers for mantissa in mantissas]
            ticks = [tick for tick in found if self.low <= tick <= self.high]
            if len(ticks) <= most:
                break
        ticks = ticks[:: max(1, math.ceil(len(ticks) / most))]
        return ticks if len(ticks) > 2 else []

    def _spaced(self, value: float) -> float:
        return math.log10(value) if self.log else value


def spanning(values: Sequence[float], start: float, end: float, *, log: bool = False, margin: float = 0.0) -> Scale:
    """Return an axis that covers all `values`, with a `margin` at both ends as a share of their range."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * abs(high):
        room = ROOM * abs(high) or ROOM
        low, high = (low / (1 + ROOM), high * (1 + ROOM)) if log else (low - room, high + room)
    elif margin and log:
        factor = (high / low) ** margin
        low, high = low / factor, high * factor
    elif margin:
        room = margin * (high - low)
        low, high = low - room, high + room
    return Scale(low, high, start, end, log)


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Return the labels of ticks, at least one, all with as many decimals as any of them needs.

    >>> tick_texts([0, 0.5, 1]), tick_texts([0, 20_000]), tick_texts([0, 2e-5])
    (['0.0', '0.5', '1.0'], ['0', '20k'], ['0', '2e-5'])
    """
    largest = max(map(abs, ticks))
    if largest >= 1e15 or 0 < largest < 1e-3:
        return [short_number(tick) for tick in ticks]
    size, letter = next(((size, letter) for beginning, size, letter in UNITS if largest >= beginning), (1.0, ""))
    if ticks[0] > 0 and ticks[-1] / ticks[0] > WIDE:
        return [f"{tick / size:g}{letter}" for tick in ticks]
    decimals = max(len(f"{tick / size:.10f}".rstrip("0").partition(".")[2]) for tick in ticks)
    return ["0" if letter and not tick else f"{tick / size:,.{decimals}f}{letter}" for tick in ticks]


def _round_numbers(low: float, high: float, most: int, *, whole: bool) -> list[float]:
    power = math.floor(math.log10((high - low) / most))
    power = max(power, 0) if whole else power
    for size in SIZES:
        # Integers until the last division: a multiple of 0.1 would not be round.
        up, down = size * 10 ** max(power, 0), 10 ** max(-power, 0)
        numbers = range(math.ceil(low * down / up), math.floor(high * down / up) + 1)
        if len(numbers) <= most:
            return [number * up / down for number in numbers]
    raise AssertionError("the largest size leaves fewer ticks than the range was divided into")
