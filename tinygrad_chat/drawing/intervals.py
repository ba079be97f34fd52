"""Means with their confidence intervals, one per row, as SVG in the style of a chart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinygrad_chat.drawing.chart import BELOW, LETTER, LINE, SIDE, picture
from tinygrad_chat.drawing.scale import Scale, spanning, tick_texts
from tinygrad_chat.pages import Markup, escape

WIDTH = 760.0
ROW = 30.0  # pixels from one row to the next
TOP = 40.0  # where the rows begin, below the title
CAP = 5.0  # half the height of an interval's ends


@dataclass(frozen=True)
class Interval:
    """A row: its `values`, their mean, and half the width of its interval, if there is one."""

    name: str
    values: Sequence[float]
    mean: float
    half_width: float | None = None


@dataclass(frozen=True)
class IntervalChart:
    """What is drawn: rows, the first at the top, over an axis called `x_name`.

    `bounds` are the least and the greatest possible value: the axis covers them, and intervals are clipped to them.
    """

    title: str
    rows: Sequence[Interval]
    x_name: str
    bounds: tuple[float, float] | None = None


def draw_intervals(chart: IntervalChart, *, width: float = WIDTH, standalone: bool = True) -> Markup:
    """Return the rows as SVG: dots are values, a bar is their mean with its interval.

    Only a `standalone` picture contains its style; on a page, the page's chart_svg.css provides it.
    """
    height = TOP + ROW * len(chart.rows) + BELOW
    title = f'<text class="title" x="{SIDE:g}" y="22">{escape(chart.title)}</text>'
    if not chart.rows:
        return picture([title], width, 2 * LINE, name=f"{chart.title}: no values", standalone=standalone)
    left = SIDE + LETTER * max(len(row.name) for row in chart.rows) + 12
    x_axis = spanning(values_shown(chart), min(left, width / 2), width - SIDE, margin=0.04)
    heights = [TOP + ROW * (position + 0.5) for position in range(len(chart.rows))]
    rows = [part for row, y in zip(chart.rows, heights, strict=True) for part in _row(row, chart.bounds, y, x_axis)]
    parts = [title, *_frame(chart, x_axis, height - BELOW), *rows]
    return picture(parts, width, height, name=chart.title, standalone=standalone)


def values_shown(chart: IntervalChart) -> list[float]:
    """Return all that the axis must cover: bounds, values, and the ends of intervals."""
    ends = [end for row in chart.rows for end in _ends(row, chart.bounds)]
    return [*(chart.bounds or ()), *ends, *(value for row in chart.rows for value in row.values)]


def _frame(chart: IntervalChart, x_axis: Scale, bottom: float) -> Iterator[str]:
    ticks = x_axis.ticks(6)
    for tick, text in zip(ticks, tick_texts(ticks), strict=True):
        x = x_axis.place(tick)
        yield f'<path class="grid" d="M{x:.1f} {TOP:g}V{bottom:.1f}"/>'
        yield f'<text class="tick x" x="{x:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{text}</text>'
    yield f'<path class="axis" d="M{x_axis.start:.1f} {bottom:.1f}H{x_axis.end:.1f}"/>'
    yield f'<text x="{x_axis.end:.1f}" y="{bottom + 34:.1f}" text-anchor="end">{escape(chart.x_name)}</text>'


def _ends(row: Interval, bounds: tuple[float, float] | None) -> list[float]:
    """Return where an interval begins and ends; without one, both are the mean."""
    low, high = bounds or (-math.inf, math.inf)
    half = row.half_width or 0.0
    return [max(row.mean - half, low), min(row.mean + half, high)]


def _row(row: Interval, bounds: tuple[float, float] | None, y: float, x_axis: Scale) -> Iterator[str]:
    longest = int((x_axis.start - SIDE) / LETTER)
    name = row.name if len(row.name) <= longest else f"{row.name[: longest - 1]}…"
    yield f'<text class="name" x="{SIDE:g}" y="{y + 4:.1f}">{escape(name)}</text>'
    ends = [] if row.half_width is None else [x_axis.place(end) for end in _ends(row, bounds)]
    caps = "".join(f"M{x:.2f} {y - CAP:.1f}v{2 * CAP:g}" for x in ends)
    bar = f"M{ends[0]:.2f} {y:.1f}H{ends[1]:.2f}{caps}" if ends else ""
    yield f'<path class="c1 line" d="M{x_axis.place(row.mean):.2f} {y - 2 * CAP:.1f}v{4 * CAP:g}{bar}"/>'
    for value in row.values:
        yield f'<circle class="c0 marker" r="4" cx="{x_axis.place(value):.2f}" cy="{y:.1f}"/>'
