"""Boxes and lanes in columns: their order and their heights.

The order follows the barycentre heuristic of Sugiyama, Tagawa and Toda (1981).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, starmap

ROW_GAP = 26.0
LANE_GAP = 16.0
CHAIN_STIFFNESS = 3.0
LANE_WEIGHT = 0.01  # where they meet, lanes give way to boxes
ORDER_SWEEPS = 12
HEIGHT_SWEEPS = 60


@dataclass(eq=False)
class Spot:
    """An item in a column: a box, or a lane that an edge runs along."""

    column: int
    owner: int
    height: float = 0.0
    is_lane: bool = False
    y: float = 0.0  # of the centre
    index: int = 0  # in the column, from the top
    before: list[Link] = field(default_factory=list)
    after: list[Link] = field(default_factory=list)


@dataclass(eq=False)
class Link:
    """One column's worth of an edge. It leaves `left` at its centre and enters `right` at `port` below its centre."""

    left: Spot
    right: Spot
    port: float = 0.0

    def __post_init__(self) -> None:
        self.left.after.append(self)
        self.right.before.append(self)

    @property
    def entry(self) -> float:
        """Where it enters, as a fractional index from the top of the column."""
        return self.right.index + self.port / (self.right.height + 1)

    @property
    def stiffness(self) -> float:
        """How much it matters that it runs straight: more in a chain, where no other edge is involved."""
        return CHAIN_STIFFNESS if len(self.left.after) == len(self.right.before) == 1 else 1.0


def order(columns: list[list[Spot]]) -> None:
    """Sort each column by its neighbours' mean index, sweeping back and forth; keep the order with fewest crossings."""
    best = [list(column) for column in columns]
    fewest = _number_places(columns)
    for sweep in range(ORDER_SWEEPS):
        to_the_left = sweep % 2 == 0
        for column in reversed(columns) if to_the_left else columns:
            column.sort(key=_mean_entry if to_the_left else _mean_origin)
            for index, spot in enumerate(column):
                spot.index = index
        crossings = _number_places(columns)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    columns[:] = best
    _number_places(columns)


def _mean_entry(spot: Spot) -> float:
    return _mean((link.entry for link in spot.after), spot.index)


def _mean_origin(spot: Spot) -> float:
    return _mean((link.left.index for link in spot.before), spot.index)


def _mean(numbers: Iterable[float], otherwise: float) -> float:
    found = list(numbers)
    return sum(found) / len(found) if found else otherwise


def _number_places(columns: list[list[Spot]]) -> int:
    """Number the spots of each column and return the number of edge crossings."""
    for column in columns:
        for index, spot in enumerate(column):
            spot.index = index
    crossings = 0
    for column in columns:
        entries: list[float] = []
        for spot in column:
            mine = [link.entry for link in spot.after]
            crossings += sum(len(entries) - bisect.bisect_right(entries, entry) for entry in mine)
            for entry in mine:
                bisect.insort(entries, entry)
    return crossings


def align(columns: list[list[Spot]]) -> None:
    """Move spots to the mean height of their neighbours, as far as the order and the gaps allow, in repeated sweeps."""
    for column in columns:
        for spot, y in zip(column, _kept_apart([0.0] * len(column), column), strict=True):
            spot.y = y
    for sweep in range(HEIGHT_SWEEPS):
        for column in columns if sweep % 2 else reversed(columns):
            wanted = [_wanted_height(spot) for spot in column]
            for spot, y in zip(column, _kept_apart(wanted, column), strict=True):
                spot.y = y


def _wanted_height(spot: Spot) -> float:
    """Return the ideal height: a lane's is where it leads, so that its edge bends once; a box's amid its neighbours."""
    if spot.is_lane:
        onward = [link.right.y for link in spot.after if link.right.is_lane]
        return _mean(onward or [link.right.y + link.port for link in spot.after], spot.y)
    pulls = [(link.right.y + link.port, link.stiffness) for link in spot.after]
    pulls += [(link.left.y - link.port, link.stiffness) for link in spot.before]
    return sum(y * pull for y, pull in pulls) / sum(pull for _, pull in pulls) if pulls else spot.y


def _kept_apart(wanted: Sequence[float], column: Sequence[Spot]) -> list[float]:
    """Return the heights nearest to `wanted`, by weighted least squares, that keep the order and the gaps.

    With the gaps subtracted, heights need only be non-decreasing: isotonic regression, by pooling adjacent violators.
    """
    offsets = list(accumulate(starmap(_gap, pairwise(column)), initial=0.0))
    pools: list[tuple[float, float, int]] = []  # mean, weight, count
    for spot, y, offset in zip(column, wanted, offsets, strict=True):
        mean, weight, count = y - offset, LANE_WEIGHT if spot.is_lane else 1.0, 1
        while pools and pools[-1][0] > mean:
            above, heavier, others = pools.pop()
            mean = (above * heavier + mean * weight) / (heavier + weight)
            weight, count = heavier + weight, others + count
        pools.append((mean, weight, count))
    level = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(level, offsets, strict=True)]


def _gap(above: Spot, below: Spot) -> float:
    """Return the least distance between two centres."""
    return (above.height + below.height) / 2 + (LANE_GAP if above.is_lane or below.is_lane else ROW_GAP)


def straighten(lanes: Sequence[Spot], columns: Sequence[Sequence[Spot]]) -> None:
    """Move the lanes of an edge, from its end to its start, to as few different heights as their columns allow."""
    stretch: list[Spot] = []
    low, high = -math.inf, math.inf
    for lane in reversed(lanes):
        column = columns[lane.column]
        above, below = column[: lane.index][-1:], column[lane.index + 1 :][:1]
        top = above[0].y + _gap(above[0], lane) if above else -math.inf
        bottom = below[0].y - _gap(lane, below[0]) if below else math.inf
        if max(low, top) > min(high, bottom):
            _level(stretch, low, high)
            stretch, low, high = [], -math.inf, math.inf
        stretch.append(lane)
        low, high = max(low, top), min(high, bottom)
    _level(stretch, low, high)


def _level(stretch: Sequence[Spot], low: float, high: float) -> None:
    for lane in stretch:
        lane.y = min(max(stretch[0].y, low), high)
