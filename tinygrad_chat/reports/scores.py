"""A report's scores on tasks: a row for each task, pictures, and some of the model's answers."""

from __future__ import annotations

from typing import NamedTuple

from tinygrad_chat.drawing.chart import Chart, Series
from tinygrad_chat.drawing.intervals import Interval, IntervalChart
from tinygrad_chat.reports.content import Report
from tinygrad_chat.runs.scores import Example, TaskResult

ERRORS = 1.96  # standard errors on each side of an accuracy, for a 95 % interval
EXAMPLES = 2  # answers to a task that are shown


class ScoreRow(NamedTuple):
    """The scores on a task, as text for people."""

    task: str
    solved: str
    problems: str
    by_chance: str
    centred: str


def score_rows(report: Report) -> list[ScoreRow]:
    """Return a row for each task that the newest checkpoint was evaluated on."""
    return [
        ScoreRow(
            result.task,
            f"{100 * result.accuracy:.1f} ± {100 * result.error:.1f} %",
            f"{result.count:,}",
            f"{result.chance:.0%}",
            f"{result.centred:.3f}",
        )
        for result in _newest(report)
    ]


def score_chart(report: Report) -> IntervalChart:
    """Return the newest scores, a row for each task; a dot is the score, the bar its 95 % interval."""
    rows = [
        Interval(result.task, [100 * result.accuracy], 100 * result.accuracy, 100 * ERRORS * result.error)
        for result in _newest(report)
    ]
    step = f"{report.scores[-1].step:,}" if report.scores else ""
    return IntervalChart(f"Problems solved at step {step}", rows, "%, with their 95 % interval", bounds=(0.0, 100.0))


def scores_over_time(report: Report) -> Chart:
    """Return a curve for each task that was evaluated at several steps."""
    names = dict.fromkeys(result.task for scores in report.scores for result in scores.results)
    points = {
        name: [
            (scores.step, 100 * result.accuracy)
            for scores in report.scores
            for result in scores.results
            if result.task == name
        ]
        for name in names
    }
    curves = [
        Series(name, found, color, "marked") for color, (name, found) in enumerate(points.items()) if len(found) > 1
    ]
    return Chart("Problems solved", curves, "%", from_zero=True, x_range=(0, report.summary.step or 0))


def examples(report: Report) -> list[tuple[str, Example]]:
    """Return some of the newest checkpoint's answers to each task: the task, and what was asked and answered."""
    return [(result.task, example) for result in _newest(report) for example in result.examples[:EXAMPLES]]


def _newest(report: Report) -> tuple[TaskResult, ...]:
    return report.scores[-1].results if report.scores else ()
