"""A run's report as a page: one file that needs no network, readable on a phone, in dark mode and without scripts.

Its layout is in pages/report.html; this is its content.
"""

from __future__ import annotations

from tinygrad_chat.drawing.chart import Chart, draw_chart
from tinygrad_chat.drawing.intervals import draw_intervals
from tinygrad_chat.files import real_path
from tinygrad_chat.formatting import decimal_number
from tinygrad_chat.pages import Markup, render
from tinygrad_chat.pages.renderer import Fields
from tinygrad_chat.reports.charts import ends, loss_chart, other_charts
from tinygrad_chat.reports.content import Report, environment_text
from tinygrad_chat.reports.scores import examples, score_chart, score_rows, scores_over_time


def page(report: Report) -> Markup:
    """Return the whole report as HTML that is also well-formed XML."""
    return render(
        "report.html",
        title=report.title,
        name=real_path(report.summary.path).name,
        model=report.model,
        outcome=report.summary.outcome,
        outcome_sentence=report.outcome,
        key_numbers=_unless_empty(
            tiles=[{"name": name, "value": value, "note": note} for name, value, note in report.key_numbers]
        ),
        loss=_loss(report),
        other_charts=_unless_empty(charts=[_figure(chart) for chart in other_charts(report) if chart.series]),
        scores=_scores(report),
        what_happened=_unless_empty(events=[{"step": f"{step:,}", "what": what} for step, what in report.events]),
        samples_over_time=_unless_empty(samples=_samples(report)),
        going_on=_going_on(report),
        configuration=_unless_empty(groups=_groups(report)),
        environment=_unless_empty(starts=_starts(report)),
    )


def _unless_empty(**lists: list[Fields]) -> list[Fields]:
    """Return the fields of a section, or none if it has nothing to show."""
    return [lists] if any(lists.values()) else []


def _loss(report: Report) -> list[Fields]:
    chart = loss_chart(report)
    if not chart.series:
        return []
    return [_wide_and_narrow(chart)]


def _wide_and_narrow(chart: Chart) -> Fields:
    """Return two drawings, of which a page shows the one that fits its width, so that letters do not shrink."""
    wide = draw_chart(chart, width=940, height=360, standalone=False)
    return {"wide": wide, "narrow": draw_chart(chart, height=320, standalone=False), "ends": ends(chart)}


def _scores(report: Report) -> list[Fields]:
    """Return the task scores as pictures, of which a page shows the one that fits its width, and as a table."""
    if not report.scores:
        return []
    chart, over_time = score_chart(report), scores_over_time(report)
    return [
        {
            "wide": draw_intervals(chart, width=940, standalone=False),
            "narrow": draw_intervals(chart, width=460, standalone=False),
            "over_time": [_wide_and_narrow(over_time)] if over_time.series else [],
            "rows": [row._asdict() for row in score_rows(report)],
            "answers": [
                {
                    "task": task,
                    "outcome": "solved" if example.solved else "not solved",
                    "question": example.question,
                    "answer": example.answer,
                    "expected": [] if example.solved else [{"text": example.expected}],
                }
                for task, example in examples(report)
            ],
        }
    ]


def _figure(chart: Chart) -> Fields:
    return {"picture": draw_chart(chart, standalone=False), "ends": ends(chart)}


def _samples(report: Report) -> list[Fields]:
    losses = {line["step"]: f"val loss {decimal_number(line['val_loss'], 3)}" for line in report.evaluations}
    return [{"step": f"{step:,}", "loss": losses.get(step, ""), "text": text} for step, text in report.samples]


def _going_on(report: Report) -> list[Fields]:
    path = report.best_checkpoint
    if not report.commands:
        return []
    return [
        {
            "heading": "Best checkpoint and next steps" if path else "Next steps",
            "best_checkpoint": [{"path": path}] if path else [],
            "commands": [{"purpose": purpose, "command": command} for purpose, command in report.commands],
        }
    ]


def _groups(report: Report) -> list[Fields]:
    """Return the settings in groups; those that are not the default are `changed`."""
    return [
        {
            "heading": heading,
            "settings": [
                {"name": setting.name, "value": setting.value, "kind": "default" if setting.default else "changed"}
                for setting in settings
            ],
        }
        for heading, settings in report.settings.items()
    ]


def _starts(report: Report) -> list[Fields]:
    """Return the environment of each start of the run."""
    return [
        {
            "step": f"{entry['from_step']:,}",
            "entries": [{"name": name, "value": environment_text(value)} for name, value in entry.items()],
        }
        for entry in report.environments
    ]
