"""The same charts as PNG, where a picture must be made of pixels: by matplotlib, in the extra `plots`."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tinygrad_chat.drawing.chart import COLORS, Chart
from tinygrad_chat.drawing.intervals import IntervalChart
from tinygrad_chat.errors import BackendError
from tinygrad_chat.formatting import printable
from tinygrad_chat.pages import palettes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
LONGEST_NAME = 60  # characters


def expect_matplotlib(option: str) -> None:
    """Raise BackendError, naming the option that asked for a PNG, if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise BackendError(f"{option}: needs matplotlib, the extra plots: pip install matplotlib")


def charts_as_png(charts: Sequence[Chart]) -> bytes:
    """Return charts side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(charts), 4.6), layout="constrained")
    for axes, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
        _draw(axes, chart)
    axes = figure.axes[0]
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return _png(figure)


def intervals_as_png(chart: IntervalChart) -> bytes:
    """Return rows of means with their intervals."""
    from matplotlib.figure import Figure

    colors, _ = palettes()
    figure = Figure(figsize=(7.5, 1.3 + 0.42 * len(chart.rows)), layout="constrained")
    axes = figure.subplots()
    for position, row in enumerate(reversed(chart.rows)):
        bar = {"fmt": "|", "color": colors["series-1"], "markersize": 14, "capsize": 4, "linewidth": 1.4}
        axes.errorbar(row.mean, position, xerr=row.half_width or 0, **bar)
        axes.plot(
            row.values, [position] * len(row.values), "o", color=colors["series-0"], markeredgecolor="white", zorder=3
        )
    axes.set_yticks(range(len(chart.rows)), [_literal(row.name) for row in reversed(chart.rows)])
    axes.set_ylim(-0.6, len(chart.rows) - 0.4)
    axes.tick_params(axis="y", length=0)
    _frame(axes, chart.title, chart.x_name)
    return _png(figure)


def _draw(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import EngFormatter

    colors, _ = palettes()
    for series in chart.series:
        style = {"color": colors[f"series-{series.color % COLORS}"], "label": _literal(series.name) or None}
        if series.style == "rings":
            style |= {"linestyle": "", "marker": "o", "markerfacecolor": "none"}
        else:
            style |= {"linestyle": "--" if series.color >= COLORS else "-", "linewidth": 1.8}
        if series.style == "marked":
            style |= {"marker": "o", "markersize": 3.5}
        if series.style == "faint":
            style |= {"linewidth": 0.9, "alpha": 0.5}
        axes.plot([x for x, _ in series.points], [math.nan if y is None else y for _, y in series.points], **style)
    for mark in chart.marks:
        axes.axvline(mark.x, color=colors[f"series-{mark.color % COLORS}"], linestyle="--", label=_literal(mark.name))
    if chart.log:
        axes.set_yscale("log")
    if chart.from_zero:
        axes.set_ylim(bottom=0)
    if chart.x_range:
        axes.set_xlim(left=chart.x_range[0])
    if chart.whole:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel(_literal(chart.unit), fontsize=9, color=colors["muted"])
    _frame(axes, chart.title, chart.x_name)


def _frame(axes: Axes, title: str, x_name: str) -> None:
    colors, _ = palettes()
    axes.set_title(_literal(title), loc="left", fontsize=11, color=colors["text"])
    axes.set_xlabel(_literal(x_name), fontsize=9, color=colors["muted"])
    axes.grid(color=colors["line"], alpha=0.55)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _literal(text: str) -> str:
    """Return a text, shortened, that is shown literally: not as a formula, nor left out for its leading underscore."""
    short = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
    return re.sub("^_", " _", printable(short).replace("$", r"\$"))


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    return content.getvalue()
