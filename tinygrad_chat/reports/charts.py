"""The charts of a run's report: logged values over steps, smoothed where they are noisy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygrad_chat.drawing.chart import Chart, Mark, Series
from tinygrad_chat.formatting import grouped_number
from tinygrad_chat.reports.comparison import SMOOTHING, smooth
from tinygrad_chat.reports.content import Record, Report
from tinygrad_chat.reports.summary import is_number

FEWEST_TO_SMOOTH = 60  # points of a curve
WIDE = 10  # values that differ by more than this factor are drawn on a logarithmic axis


def loss_chart(report: Report) -> Chart:
    """Return the chart of losses, with skipped updates, resumptions and rollbacks."""
    skipped = [record for record in report.records if is_number(record.get("skipped_spike"))]
    series = [
        *_noisy("training", _points(report.records, "loss"), 0),
        Series("validation", _points(report.evaluations, "val_loss"), 1, "marked"),
        Series("skipped", _points(skipped, "loss"), 4, "rings"),
    ]
    marks = [
        Mark("resumed", entry["from_step"], f"resumed from step {entry['from_step']:,}", color=3)
        for entry in report.environments
        if entry["from_step"]
    ]
    for record in report.records:
        if is_number(record.get("rolled_back_from")):
            text = f"rolled back from step {record['rolled_back_from']:,}: {record.get('reason', '')}"
            marks.append(Mark("rolled back", record["step"], text, until=record["rolled_back_from"]))
    return _chart(report, "Loss", "nats a token", series, marks=marks)


def other_charts(report: Report) -> list[Chart]:
    """Return the charts below that of the losses."""
    bits = [Series("validation", _points(report.evaluations, "val_bpb"), 1, "marked")]
    rates = [Series("learning rate", _points(report.records, "lr"), 2)]
    norms = _noisy("gradient norm", _points(report.records, "grad_norm"), 3)
    speeds = [(step, speed) for step, speed in _points(report.timings, "tokens_per_second") if speed > 0]
    rewards = [
        *_noisy("of training answers", _points(report.records, "reward"), 0),
        Series("of held-out problems", _points(report.evaluations, "val_reward"), 1, "marked"),
    ]
    return [
        *([_chart(report, "Reward", "mean", rewards, from_zero=True)] if any(each.points for each in rewards) else []),
        _chart(report, "Bits per byte", "of the held-out text", bits),
        _chart(report, "Learning rate", "", rates, from_zero=True),
        _chart(report, "Gradient norm", "before clipping", norms),
        _chart(report, "Speed", "tokens/s", _noisy("tokens/s", speeds, 0, harmonic=True), from_zero=True),
    ]


def ends(chart: Chart) -> str:
    """Return the last value of each curve, in words; on a page, the values under the pointer replace them."""
    last = [
        f"{curve.name} {grouped_number(curve.points[-1][1] or 0)}"
        for curve in chart.series
        if curve.style in ("line", "marked")
    ]
    return ", ".join(last)


def _points(lines: Sequence[Record], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in lines if is_number(line.get(key))]


def _noisy(name: str, points: Sequence[tuple[float, float]], color: int, *, harmonic: bool = False) -> list[Series]:
    """Return a curve; if it has many points, a faint one and its moving average.

    The average is `harmonic` for speeds: total work over total time.
    """
    if len(points) < FEWEST_TO_SMOOTH:
        return [Series(name, points, color)]
    steps, values = np.array(points).T
    means = 1 / smooth(1 / values) if harmonic else smooth(values)
    edge = len(points) // 4 // SMOOTHING  # averages over few neighbours, which would end the curve in noise
    smoothed = list(zip(steps.tolist(), means.tolist(), strict=True))[edge : len(points) - edge]
    return [Series("as logged", points, color, "faint"), Series(f"smoothed {name}", smoothed, color)]


def _chart(
    report: Report,
    title: str,
    unit: str,
    series: Sequence[Series],
    *,
    from_zero: bool = False,
    marks: Sequence[Mark] = (),
) -> Chart:
    """Return a chart of the series that have points; its y axis is logarithmic if the values are far apart."""
    drawn = [curve for curve in series if curve.points]
    values = [value for curve in drawn for _, value in curve.points if value is not None]
    log = not from_zero and bool(values) and min(values) > 0 and max(values) > WIDE * min(values)
    return Chart(
        title,
        drawn,
        ", ".join(filter(None, (unit, "logarithmic" if log else ""))),
        marks=marks,
        log=log,
        from_zero=from_zero,
        x_range=(0, report.summary.step or 0),
    )
