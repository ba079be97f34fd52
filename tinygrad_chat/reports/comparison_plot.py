"""A comparison as pictures: losses over tokens or bytes, and over seconds of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinygrad_chat.drawing.chart import COLORS, Chart, Mark, Series, draw_charts
from tinygrad_chat.drawing.png import charts_as_png
from tinygrad_chat.files import write_atomic
from tinygrad_chat.reports.comparison import NATS, Comparison

LAST_COLOR = COLORS - 1  # the grey one


def write_comparison_plot(comparison: Comparison, folder: Path, *, png: bool = False) -> list[Path]:
    """Draw the curves over text and over seconds as compare.svg in `folder`, and as compare.png; return the paths."""
    charts = comparison_charts(comparison)
    pictures = {folder / "compare.svg": draw_charts(charts).encode()}
    if png:
        pictures[folder / "compare.png"] = charts_as_png(charts)
    for path, content in pictures.items():
        write_atomic(path, content)
    return list(pictures)


def comparison_charts(comparison: Comparison) -> list[Chart]:
    """Return charts of all runs' curves, over text and over seconds, from where they enter the range of losses."""
    unit = "nats a token" if comparison.unit == NATS else "bits per byte"
    _, top = comparison.losses_shown()
    cut = any(curve.losses.max() > top for run in comparison.runs for curve in run.curves())
    return [
        Chart(
            f"Loss over {axis}",
            list(_series(comparison, axis)),
            f"{unit}; thin: training{'; beginning cut off' if cut else ''}",
            x_name="seconds of training" if axis == "seconds" else f"training {axis}",
            whole=axis != "seconds",
            marks=[Mark("reached by all", comparison.reached_by_all(axis), "reached by all", color=LAST_COLOR)],
            x_range=(0, 0),
        )
        for axis in comparison.axes
    ]


def _series(comparison: Comparison, axis: str) -> Iterator[Series]:
    _, top = comparison.losses_shown()
    for number, run in enumerate(comparison.runs):
        yield Series("", list(zip(*run.training.below(top, axis), strict=True)), number, "faint")
        points = list(zip(*run.validation.below(top, axis), strict=True))
        yield Series("", points[:2], number)  # from its entry into the picture, which is not an evaluation
        yield Series(run.name, [point for point in points if point[1] < top], number, "marked")
