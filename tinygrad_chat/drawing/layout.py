"""Where boxes and curves go: a layered drawing, left to right, after Sugiyama, Tagawa and Toda (1981).

Four steps: a column for each node, lanes for edges that pass columns, then (columns.py) an order in each column with
few crossings, and heights at which edges run straight. Standard library only, and no randomness: a graph always
gives the same picture. Lengths are in pixels; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tinygrad_chat.drawing.columns import Link, Spot, align, order, straighten

MARGIN = 24.0
BEND = 50.0  # the first part of the gap between two columns, where edges change their height
STRAIGHT = 62.0  # the least length of the rest, where an edge has its text
PORT_GAP = 20.0


@dataclass(frozen=True)
class Box:
    """Where a node is drawn; x and y are those of its top left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Curve:
    """An edge: horizontal from `start` to `end` at height `y` in each run, and bent between runs."""

    parent: int
    child: int
    operand: int
    runs: tuple[tuple[float, float, float], ...]
    """(start, end, y)"""


@dataclass(frozen=True)
class Layout:
    """A drawing of `width` by `height`."""

    width: float
    height: float
    boxes: dict[int, Box]
    curves: list[Curve]


def arrange(
    sizes: Mapping[int, tuple[float, float]], parents: Mapping[int, Sequence[int]], *, straight: float = STRAIGHT
) -> Layout:
    """Lay a graph out, parents left of their children.

    `sizes` has each node's (width, height) and `parents` its parents in order: the first enters at the top. Numbers
    grow from parents to children. Each edge ends in a line of at least `straight`, for its text.
    """
    column_of = _columns(parents)
    trunks = {number: [Spot(column_of[number], number, sizes[number][1])] for number in sizes}
    for child, those in parents.items():
        for operand, parent in enumerate(those):
            trunk = trunks[parent]  # a box and the lanes after it, shared by all edges that leave it
            while trunk[-1].column < column_of[child] - 1:
                trunk.append(Spot(trunk[-1].column + 1, parent, is_lane=True))
                Link(trunk[-2], trunk[-1])
            last = trunk[column_of[child] - 1 - column_of[parent]]
            Link(last, trunks[child][0], _port(sizes[child][1], len(those), operand))
    visit = _visits(parents)
    spots = [spot for trunk in trunks.values() for spot in trunk]
    columns: list[list[Spot]] = [[] for _ in range(max(column_of.values()) + 1)]
    for spot in sorted(spots, key=lambda spot: visit[spot.owner]):
        columns[spot.column].append(spot)
    order(columns)
    align(columns)
    for trunk in trunks.values():
        straighten(trunk[1:], columns)
    return _measured(sizes, parents, trunks, columns, max(straight, STRAIGHT))


def _columns(parents: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Return each node's column: its longest path from a leaf. A leaf itself stands just left of its first use."""
    column: dict[int, int] = {}
    for number in sorted(parents):
        column[number] = 1 + max((column[parent] for parent in parents[number]), default=-1)
    first_use: dict[int, int] = {}
    for number, those in parents.items():
        for parent in those:
            first_use[parent] = min(first_use.get(parent, column[number]), column[number])
    return {number: column[number] if parents[number] else first_use.get(number, 1) - 1 for number in column}


def _port(height: float, count: int, operand: int) -> float:
    gap = min(PORT_GAP, (height - PORT_GAP) / max(count - 1, 1))
    return (operand - (count - 1) / 2) * gap


def _visits(parents: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Return when a depth-first walk from the results, operands in order, first meets each node. Keeps trees planar."""
    visit: dict[int, int] = {}
    for result in sorted(parents, reverse=True):
        waiting = [result]
        while waiting:
            number = waiting.pop()
            if number not in visit:
                visit[number] = len(visit)
                waiting.extend(reversed(parents[number]))
    return visit


def _measured(
    sizes: Mapping[int, tuple[float, float]],
    parents: Mapping[int, Sequence[int]],
    trunks: Mapping[int, list[Spot]],
    columns: list[list[Spot]],
    straight: float,
) -> Layout:
    widths = [max(sizes[spot.owner][0] for spot in column if not spot.is_lane) for column in columns]
    lefts = list(accumulate(widths, lambda left, width: left + width + BEND + straight, initial=MARGIN))
    top = min(spot.y - spot.height / 2 for column in columns for spot in column) - MARGIN
    bottom = max(spot.y + spot.height / 2 for column in columns for spot in column) + MARGIN
    boxes = {}
    for number, (width, height) in sizes.items():
        spot = trunks[number][0]
        x = lefts[spot.column] + (widths[spot.column] - width) / 2
        boxes[number] = Box(x, spot.y - height / 2 - top, width, height)
    curves = []
    for child, those in parents.items():
        spot, box = trunks[child][0], boxes[child]
        for operand, parent in enumerate(those):
            start = boxes[parent]
            lanes = trunks[parent][: spot.column - trunks[parent][0].column]
            runs = [
                (lefts[lane.column] - straight, lefts[lane.column] + widths[lane.column], lane.y - top)
                for lane in lanes
            ]
            runs[0] = (start.x + start.width, *runs[0][1:])
            entry = spot.y + _port(box.height, len(those), operand) - top
            curves.append(Curve(parent, child, operand, (*runs, (lefts[spot.column] - straight, box.x, entry))))
    return Layout(lefts[-1] - BEND - straight + MARGIN, bottom - top, boxes, curves)
