"""Charts of results, as PNG and SVG: ours in colour, peers in greys. Equal data give equal files.

They need matplotlib, the extra `plots`; without it one line says so, and the JSON is there all the same.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.turns import OURS, PLAIN, progress
from tinygrad_chat.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches; at 100 pixels an inch that is how wide a README shows it
DOTS_PER_INCH = 200
BAR = 0.18  # inches from one bar to the next
GAP = 0.8  # bars' worth of room between two groups; less where a group is a single bar
FRAME = 1.0  # inches for title and legend
ROW = 0.2  # inches from one ratio to the next
LEGEND = 80  # characters of it in a line
REMARK = 0.31  # inches from the top to the remark below the title
COLORS = {
    OURS: "#d9480f",
    PLAIN: "#f4a27a",
    "torch eager": "#5c636a",
    "torch compile": "#949ba2",
    "nanochat eager": "#5c636a",
    "nanochat compile": "#949ba2",
    "tinygrad_chat, first use": "#f4a27a",
    "torch compile, again": "#b9bfc5",
    "jax jit": "#a9b8c9",
    "torch bfloat16": "#dee2e6",
    "mean": "#d9480f",
    "seed": "#f4a27a",
    "measured here": "#d9480f",
    "model of a step": "#949ba2",
}
BEHIND = "#3b6ea5"  # a ratio below 1
INK = "#212529"
QUIET = "#6c757d"
FAINT = "#e9ecef"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the files do not depend on the machine's fonts
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "tinygrad_chat",
}


@dataclass(frozen=True)
class Bars:
    """One engine's bars: a length for each group (None: it has none there), what is written at each, and `pale`, the
    part of each that is set apart."""

    name: str
    lengths: Sequence[float | None]
    texts: Sequence[str]
    pale: Sequence[float] | None = None


@dataclass(frozen=True)
class Curve:
    """One engine's values over sizes, and what the legend says after its name."""

    name: str
    remark: str
    sizes: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Curves over one axis of sizes."""

    title: str
    curves: Sequence[Curve]


def draw_bars(
    folder: Path,
    name: str,
    *,
    title: str,
    remark: str,
    groups: Sequence[str],
    bars: Sequence[Bars],
    ratios: Sequence[str],
    reference: float | None = None,
) -> None:
    """Write <name>.png and <name>.svg: in each group a bar for each engine, ours with its ratio to the peer, and a
    dashed line at the length `reference`. `remark` says below the title what lengths and texts are."""
    gap = GAP if len(bars) > 1 else GAP / 4
    places, top = _places(bars, len(groups), gap)
    with _figure(folder, name, FRAME + BAR * top, title, remark) as figure:
        if figure is None:
            return
        axes = figure.subplots()
        longest = max(length for engine in bars for length in engine.lengths if length is not None)
        for engine, of_engine in zip(bars, places, strict=True):
            _draw_engine(axes, engine, of_engine, ratios)
        in_group = [[of_engine[group] for of_engine in places if group in of_engine] for group in range(len(groups))]
        axes.set_yticks([(ys[0] + ys[-1]) / 2 for ys in in_group], groups)
        axes.set_ylim(top - 0.5 - gap / 2, -0.5 - gap / 2)
        axes.set_xlim(0, 1.25 * longest)  # room for the longest bar's text
        if reference is not None:
            axes.axvline(reference, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for ys in in_group[1:]:
            axes.axhline(ys[0] - 0.5 - gap / 2, color=FAINT, linewidth=0.8)
        axes.spines[["right", "top", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks([])
        if len(bars) > 1:
            handles, labels = axes.get_legend_handles_labels()
            lines = -(-sum(map(len, labels)) // LEGEND)
            columns = -(-len(bars) // lines)
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=1.2)


def _places(bars: Sequence[Bars], groups: int, gap: float) -> tuple[list[dict[int, float]], float]:
    """Return where each engine's bar stands in each group that it has one in, from the top, and how far all reach."""
    places: list[dict[int, float]] = [{} for _ in bars]
    y = 0.0
    for group in range(groups):
        for engine, of_engine in zip(bars, places, strict=True):
            if engine.lengths[group] is not None:
                of_engine[group] = y
                y += 1
        y += gap
    return places, y


def times(ratio: float) -> str:
    """Return a ratio as it is written at our bars."""
    return f"{ratio:.{2 if ratio < 10 else 1}f}\N{MULTIPLICATION SIGN}"


def _draw_engine(axes: Axes, engine: Bars, places: Mapping[int, float], ratios: Sequence[str]) -> None:
    """Draw the bars of one engine, each at its place in its group."""
    ours, ys = engine.name == OURS, list(places.values())
    lengths = [engine.lengths[group] or 0.0 for group in places]
    axes.barh(ys, lengths, height=0.84, color=COLORS[engine.name], label=engine.name)
    if engine.pale:
        axes.barh(ys, [engine.pale[group] for group in places], height=0.84, color="white", alpha=0.5)
    for group, length in zip(places, lengths, strict=True):
        label = axes.annotate(
            ratios[group] if ours else engine.texts[group],
            (length, places[group]),
            xytext=(4, 0),
            textcoords="offset points",
            va="center_baseline",
            color=COLORS[OURS] if ours else INK,
            fontweight="bold" if ours else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},  # above the dashed line
        )
        if ours:
            axes.annotate(
                engine.texts[group],
                (1, places[group]),
                xycoords=(label, "data"),
                xytext=(6 if ratios[group] else 0, 0),
                textcoords="offset points",
                va="center_baseline",
                color=INK,
            )


def draw_ratios(folder: Path, name: str, *, title: str, remark: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Write <name>.png and <name>.svg: one bar for each ratio, to the right of 1 where we are ahead and to the
    left where we are behind. `groups` has the ratios of each heading by their labels; the axis is logarithmic."""
    rows = [
        row
        for heading, ratios in groups.items()
        for row in [(heading, None), *((f"  {k}", v) for k, v in ratios.items())]
    ]
    with _figure(folder, name, FRAME + ROW * len(rows), title, remark) as figure:
        if figure is None:
            return
        axes = figure.subplots()
        for y, (label, ratio) in enumerate(rows):
            heading = ratio is None
            axes.text(
                -0.34, y, label, transform=axes.get_yaxis_transform(), va="center", weight="bold" if heading else None
            )
            if ratio is None:
                continue
            ahead = ratio >= 1
            axes.barh(y, ratio - 1, left=1, height=0.7, color=COLORS[OURS] if ahead else BEHIND)
            axes.annotate(
                times(ratio),
                (ratio, y),
                xytext=(4 if ahead else -4, 0),
                textcoords="offset points",
                ha="left" if ahead else "right",
                va="center_baseline",
                color=COLORS[OURS] if ahead else BEHIND,
                fontweight="bold",
            )
        ratios = [ratio for _, ratio in rows if ratio is not None]
        axes.set_xscale("log")
        axes.set_xlim(min(ratios) / 1.5, max(ratios) * 1.4)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.axvline(1, color=INK, linewidth=0.8)
        ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10) if axes.get_xlim()[0] < tick < axes.get_xlim()[1]]
        axes.set_xticks(ticks, [f"{tick:g}\N{MULTIPLICATION SIGN}" for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks([])
        axes.grid(axis="x", color=FAINT)
        axes.set_axisbelow(True)
        axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
        axes.tick_params(length=0)


def draw_curves(
    folder: Path, name: str, *, title: str, remark: str, panels: Sequence[Panel], logarithmic: bool = True
) -> None:
    """Write <name>.png and <name>.svg: panels side by side, both axes logarithmic unless told otherwise, a legend in
    each."""
    with _figure(folder, name, 4.0, title, remark) as figure:
        if figure is None:
            return
        from matplotlib.ticker import LogLocator

        for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
            for number, curve in enumerate(panel.curves):
                axes.plot(
                    curve.sizes,
                    curve.values,
                    marker="o",
                    markersize=4.5 if logarithmic else 3,
                    linewidth=2,
                    color=COLORS[curve.name],
                    label=f"{curve.name}, {curve.remark}",
                    zorder=3 - number,
                )
            if logarithmic:
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                sizes = sorted({size for curve in panel.curves for size in curve.sizes})
                axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.minorticks_off()
            axes.set_xlabel(panel.title)
            axes.grid(color=FAINT)
            axes.set_axisbelow(True)
            axes.spines[["right", "top"]].set_visible(False)
            axes.legend(frameon=False, loc="upper left" if logarithmic else "best")


@contextlib.contextmanager
def _figure(folder: Path, name: str, height: float, title: str, remark: str) -> Iterator[Figure | None]:
    """Provide a figure and write it when it is done; None, with a line on stderr, without matplotlib."""
    if find_spec("matplotlib") is None:
        progress("no chart: matplotlib is not installed, the extra plots: pip install -e '.[plots]'")
        yield None
        return
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
        figure.suptitle(f"{title}\n", x=0.012, ha="left", fontsize=11.5, fontweight="bold")  # room for the remark
        figure.text(0.012, 1 - REMARK / height, remark, va="top", color=QUIET)
        yield figure
        for kind, dated in (("png", "Software"), ("svg", "Date")):
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, metadata={dated: None})
            write_atomic(folder / f"{name}.{kind}", content.getvalue())
            print(f"written: {folder / f'{name}.{kind}'}")
