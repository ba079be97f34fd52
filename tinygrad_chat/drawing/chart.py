"""A line chart as SVG, readable on light and dark screens. Its styles affect nothing else on a page.

On a page of charts, pages/chart.js reads off the values under the pointer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinygrad_chat.drawing.scale import HUGE, TINY, Scale, spanning, tick_texts
from tinygrad_chat.pages import Markup, escape, svg_style

Point = tuple[float, float]

COLORS = 8
"""The number of colours; a curve with a higher number reuses them, dashed."""

LETTER = 7.2  # the width of a letter in a 12-pixel font, with some slack
LINE = 18.0  # from one line of text to the next
SIDE = 16.0  # the empty margin on the left and on the right
BELOW = 42.0  # below the frame: the ticks and the name of the axis
MARGIN = 0.04  # of the values' range, above and below
SWATCH = 24.0  # from the start of a legend entry to its text
MARKER_ROOM = 6.0  # pixels per point from which each point gets a marker


@dataclass(frozen=True)
class Series:
    """A named curve through points (x, y), x non-decreasing; where y is None or not finite, it has a gap.

    `style` is `line`; `faint`, for raw values behind a smoothed curve; `marked`, a line with a dot at each point; or
    `rings`, not joined by a line. `color` is a number, see COLORS. A series without a name is not in the legend.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    color: int = 0
    style: str = "line"


@dataclass(frozen=True)
class Mark:
    """An event at x: a dashed line, and a band up to `until` if it concerns a range.

    Marks with the same `name` share a legend entry; `text` is shown when the pointer rests on the mark.
    """

    name: str
    x: float
    text: str
    until: float | None = None
    color: int = 4


@dataclass(frozen=True)
class Chart:
    """What is drawn: curves over `x_name`, which takes only whole numbers if `whole`. `unit` stands beside the title.

    `log` makes the y axis logarithmic, with gaps where y is not above 0; `from_zero` starts y at 0.
    The x axis covers at least `x_range`, so that several charts can be aligned one below another.
    """

    title: str
    series: Sequence[Series]
    unit: str = ""
    x_name: str = "step"
    whole: bool = True
    marks: Sequence[Mark] = ()
    log: bool = False
    from_zero: bool = False
    x_range: tuple[float, float] | None = None


def draw_chart(chart: Chart, *, width: float = 460, height: float = 280, standalone: bool = True) -> Markup:
    """Return a chart as SVG that keeps its proportions at any width. Without any points, it says so in words.

    Only a `standalone` picture contains its style; on a page, the page's chart_svg.css provides it.
    """
    pieces = [list(_unbroken(series.points, log=chart.log)) for series in chart.series]
    points = [point for curve in pieces for piece in curve for point in piece]
    if not points:
        title = f'<text class="title" x="{SIDE:g}" y="22">{escape(chart.title)}: no values</text>'
        return picture([title], width, 2 * LINE, name=f"{chart.title}: no values", standalone=standalone)
    legend, top = _legend(chart, width)
    across = [x for x, _ in points] + [x for mark in chart.marks for x in (mark.x, mark.until) if x is not None]
    across += chart.x_range or ()
    up = [y for _, y in points] + ([0.0] if chart.from_zero and not chart.log else [])
    y_axis = spanning(up, height - BELOW, top, log=chart.log, margin=MARGIN)
    if chart.from_zero and min(up) == 0 and not chart.log:
        y_axis = Scale(0.0, y_axis.high, y_axis.start, y_axis.end)
    y_ticks = y_axis.ticks(6)
    left = SIDE + LETTER * max(map(len, tick_texts(y_ticks))) + 8
    x_axis = spanning(across, left, width - SIDE)
    curves = sorted(zip(chart.series, pieces, strict=True), key=lambda pair: _LAYERS.index(pair[0].style))
    return picture(
        [
            f'<text x="{SIDE:g}" y="22"><tspan class="title">{escape(chart.title)}</tspan> {escape(chart.unit)}</text>',
            *legend,
            *_frame(chart, x_axis, y_axis, y_ticks),
            *(_mark(mark, x_axis, y_axis) for mark in chart.marks),
            *(_curve(series, curve, x_axis, y_axis) for series, curve in curves),
            '<path class="cross" d=""/>',
        ],
        width,
        height,
        name=f"{chart.title}, {chart.unit}" if chart.unit else chart.title,
        data={"x-name": chart.x_name, "x": _axis_data(x_axis), "y": _axis_data(y_axis)},
        standalone=standalone,
    )


def draw_charts(charts: Sequence[Chart], *, width: float = 470, height: float = 340) -> Markup:
    """Return charts side by side as one picture, each `width` by `height`."""
    whole = len(charts) * width + (len(charts) - 1) * SIDE
    placed = [
        f'<svg x="{position * (width + SIDE):g}" width="{width:g}" height="{height:g}">'
        f"{draw_chart(chart, width=width, height=height, standalone=False)}</svg>"
        for position, chart in enumerate(charts)
    ]
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:g} {height:g}">'
        f"<style>{svg_style('chart_svg.css')}</style>{''.join(placed)}</svg>"
    )


def picture(
    parts: Iterable[str],
    width: float,
    height: float,
    *,
    name: str,
    data: Mapping[str, str] | None = None,
    standalone: bool = True,
) -> Markup:
    """Return a picture in the style of a chart; `name` is its text alternative, `data` is for scripts."""
    attributes = "".join(f' data-{key}="{escape(value)}"' for key, value in (data or {}).items())
    return Markup(
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="tgc-chart" viewBox="0 0 {width:g} {height:g}" '
                f'role="img" aria-label="{escape(name)}"{attributes}>',
                *([f"<style>{svg_style('chart_svg.css')}</style>"] if standalone else []),
                f'<rect class="paper" width="{width:g}" height="{height:g}" rx="10"/>',
                *parts,
                "</svg>",
            ]
        )
    )


_LAYERS = ("faint", "line", "marked", "rings")  # from the back to the front


def thinned(points: Sequence[Point], buckets: int) -> Sequence[Point]:
    """Return at most four points for each of `buckets` equal parts of the x axis: first, lowest, highest and last.

    A curve through them covers the same pixels, spikes included, however many points it had.
    """
    if len(points) <= 4 * buckets:
        return points
    low, width = points[0][0], (points[-1][0] - points[0][0]) / buckets
    kept: list[Point] = []
    for _, bucket in itertools.groupby(points, key=lambda point: (point[0] - low) // width if width else 0):
        inside = list(enumerate(bucket))
        lowest = min(inside, key=lambda point: point[1][1])
        highest = max(inside, key=lambda point: point[1][1])
        kept += [point for _, point in sorted({inside[0], lowest, highest, inside[-1]})]
    return kept


def _unbroken(points: Sequence[tuple[float, float | None]], *, log: bool) -> Iterator[list[Point]]:
    """Yield the pieces of a curve between its gaps."""
    piece: list[Point] = []
    for x, y in points:
        if y is not None and math.isfinite(x) and abs(y) < HUGE and (y > TINY or not log):
            piece.append((x, y if abs(y) > TINY else 0.0))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _legend(chart: Chart, width: float) -> tuple[list[str], float]:
    """Return the legend, in as many rows as it needs, and the y at which the frame may begin."""
    named = [(f"{_color(series.color)} {series.style}", series.name) for series in chart.series if series.name]
    named += {mark.name: (f"{_color(mark.color)} event", mark.name) for mark in chart.marks}.values()
    if len(named) < 2:
        return [], 2 * LINE
    longest = int((width - 2 * SIDE - SWATCH) / LETTER)
    parts: list[str] = []
    x, y = SIDE, 22 + LINE + 3
    for style, whole_name in named:
        name = whole_name if len(whole_name) <= longest else f"{whole_name[: longest - 1]}…"
        needed = SWATCH + LETTER * len(name)
        if x > SIDE and x + needed > width - SIDE:
            x, y = SIDE, y + LINE
        if style.endswith("rings"):
            parts.append(f'<circle class="{style.split()[0]} ring" cx="{x + 9:.1f}" cy="{y - 4:.1f}" r="4"/>')
        elif style.endswith("event"):
            parts.append(f'<path class="{style}" d="M{x + 9:.1f} {y - 11:.1f}v14"/>')
        else:
            parts.append(f'<path class="{style} line" d="M{x:.1f} {y - 4:.1f}h18"/>')
        if style.endswith("marked"):
            parts.append(f'<circle class="{style.split()[0]} marker" cx="{x + 9:.1f}" cy="{y - 4:.1f}" r="3.5"/>')
        parts.append(f'<text class="name" x="{x + SWATCH:.1f}" y="{y:.1f}">{escape(name)}</text>')
        x += needed + 16
    return parts, y + LINE


def _frame(chart: Chart, x_axis: Scale, y_axis: Scale, y_ticks: Sequence[float]) -> Iterator[str]:
    left, right, bottom = x_axis.start, x_axis.end, y_axis.start
    for tick, text in zip(y_ticks, tick_texts(y_ticks), strict=True):
        y = y_axis.place(tick)
        yield f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>'
        yield _tick("y", tick, text, left - 8, y + 4, anchor="end")
    x_ticks = x_axis.ticks(max(3, int((right - left) / 75)), whole=chart.whole)
    for tick, text in zip(x_ticks, tick_texts(x_ticks), strict=True):
        x = x_axis.place(tick)
        yield f'<path class="axis" d="M{x:.1f} {bottom:.1f}v4"/>'
        inside = min(x, right + SIDE - LETTER * len(text) / 2)  # keeps the last one in the picture
        yield _tick("x", tick, text, inside, bottom + 17, anchor="middle")
    yield f'<path class="axis" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>'
    yield f'<text x="{right:.1f}" y="{bottom + 34:.1f}" text-anchor="end">{escape(chart.x_name)}</text>'


def _tick(axis: str, value: float, text: str, x: float, y: float, *, anchor: str) -> str:
    position = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="tick {axis}" data-value="{value!r}" {position}>{text}</text>'


def _mark(mark: Mark, x_axis: Scale, y_axis: Scale) -> str:
    x, top, bottom = x_axis.place(mark.x), y_axis.end, y_axis.start
    band = ""
    if mark.until is not None:
        width = abs(x_axis.place(mark.until) - x)
        band = (
            f'<rect class="{_color(mark.color)} band" x="{min(x, x_axis.place(mark.until)):.2f}" y="{top:.2f}" '
            f'width="{width:.2f}" height="{bottom - top:.2f}"/>'
        )
    line = f'<path class="{_color(mark.color)} event" d="M{x:.2f} {top:.2f}V{bottom:.2f}"/>'
    return f"<g><title>{escape(mark.text)}</title>{band}{line}</g>"


def _curve(series: Series, pieces: Sequence[Sequence[Point]], x_axis: Scale, y_axis: Scale) -> str:
    """Return a curve, thinned to what its width can show; a piece of a single point gets a marker."""
    width = x_axis.end - x_axis.start
    count = sum(map(len, pieces))
    marked = series.style in ("marked", "rings") and count * MARKER_ROOM <= width
    lines: list[str] = []
    dots: list[str] = []
    shape, radius = ("ring", 4) if series.style == "rings" else ("marker", 3)
    for piece in pieces:
        placed = [(x_axis.place(x), y_axis.place(y)) for x, y in thinned(piece, int(width))]
        if series.style != "rings":
            lines.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in placed))
        if marked or series.style == "rings" or len(piece) == 1:
            kind = f'class="{_color(series.color)} {shape}" r="{radius}"'
            dots += [f'<circle {kind} cx="{x:.2f}" cy="{y:.2f}"/>' for x, y in placed]
    faint = " faint" if series.style == "faint" else ""
    path = f'<path class="{_color(series.color)} line{faint}" d="{"".join(lines)}"/>' if lines else ""
    return f'<g class="series" data-name="{escape(series.name)}">{path}{"".join(dots)}</g>'


def _color(number: int) -> str:
    return f"c{number % COLORS}{' dashed' if number >= COLORS else ''}"


def _axis_data(axis: Scale) -> str:
    """Return what chart.js needs to turn pixels into values: low, high, their pixels, and 1 if logarithmic."""
    return f"{axis.low!r} {axis.high!r} {axis.start:.2f} {axis.end:.2f} {int(axis.log)}"
