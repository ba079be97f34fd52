"""A run's report as a page: one file that needs no network, readable on a phone, in the dark and without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np

from tinygrad_chat.drawing.chart import HOVER, Chart, Mark, Series, draw_chart
from tinygrad_chat.drawing.svg import DARK, LIGHT, MONOSPACED
from tinygrad_chat.formatting import grouped_number
from tinygrad_chat.reports.comparison import SMOOTHING, smooth
from tinygrad_chat.reports.content import Record, Report, environment_text, printable
from tinygrad_chat.reports.summary import is_number

FEWEST_TO_SMOOTH = 60  # points of a curve
WIDE = 10  # values that differ by more than this factor are drawn on a logarithmic axis
OUTCOME_COLORS = {"finished": "#3f9e72", "running": "#2f6fde", "interrupted": "#dda046", "killed": "#dda046"}
FAILED_COLOR = "#d0406a"


def page(report: Report) -> str:
    """Return the whole report as HTML, which is well-formed XML too."""
    return _PAGE.format(
        title=_text(report.title),
        name=_text(report.summary.path.resolve().name),
        model=_text(report.model),
        color=OUTCOME_COLORS.get(report.summary.outcome, FAILED_COLOR),
        outcome=_text(report.outcome),
        style=_style(),
        sections="\n".join(_sections(report)),
        script=HOVER,
    )


def loss_chart(report: Report) -> Chart:
    """Return the chart of losses, with what was skipped and where training went back."""
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
            marks.append(Mark("rolled back", record["step"], printable(text), until=record["rolled_back_from"]))
    return _chart(report, "Loss", "nats a token", series, marks=marks)


def other_charts(report: Report) -> list[Chart]:
    """Return the charts that stand below that of the losses."""
    bits = [Series("validation", _points(report.evaluations, "val_bpb"), 1, "marked")]
    rates = [Series("learning rate", _points(report.records, "lr"), 2)]
    norms = _noisy("gradient norm", _points(report.records, "grad_norm"), 3)
    speeds = [(step, speed) for step, speed in _points(report.timings, "tokens_per_second") if speed > 0]
    return [
        _chart(report, "Bits per byte", "of the held-out text", bits),
        _chart(report, "Learning rate", "", rates, from_zero=True),
        _chart(report, "Gradient norm", "before clipping", norms),
        _chart(report, "Speed", "tokens/s", _noisy("tokens/s", speeds, 0, harmonic=True), from_zero=True),
    ]


def _points(lines: Sequence[Record], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in lines if is_number(line.get(key))]


def _noisy(name: str, points: Sequence[tuple[float, float]], color: int, *, harmonic: bool = False) -> list[Series]:
    """Return a curve, or where it has many points a faint one and its mean with neighbours.

    The mean is `harmonic` for speeds: as much work over as much time.
    """
    if len(points) < FEWEST_TO_SMOOTH:
        return [Series(name, points, color)]
    steps, values = np.array(points).T
    means = 1 / smooth(1 / values) if harmonic else smooth(values)
    edge = len(points) // 4 // SMOOTHING  # means of few neighbours only, which would end the curve in a scribble
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
    """Return a chart of those series that have points; its axis is logarithmic where the values are far apart."""
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


def _sections(report: Report) -> Iterator[str]:
    tiles = [
        f'<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd><dd class="note">{_text(note)}</dd></div>'
        for name, value, note in report.key_numbers
    ]
    if tiles:
        yield f'<dl class="numbers">{"".join(tiles)}</dl>'
    yield from _charts(report)
    if report.events:
        items = [f"<li><b>step {step:,}</b> {_text(what)}</li>" for step, what in report.events]
        yield _section("What happened", f'<ul class="events">{"".join(items)}</ul>')
    if report.samples:
        losses = {line["step"]: f"val loss {line['val_loss']:.3f}" for line in report.evaluations}
        shown = [
            f"<article><h3>step {step:,}<span>{losses.get(step, '')}</span></h3><pre>\n{_text(text)}</pre></article>"
            for step, text in report.samples
        ]
        yield _section("Samples over time", f'<div class="cards">{"".join(shown)}</div>')
    if report.commands:
        best = f"<p>Best checkpoint: <code>{_text(report.best_checkpoint)}</code></p>" if report.best_checkpoint else ""
        items = [f"<p>To {_text(words)}:</p><pre>\n{_text(command)}</pre>" for words, command in report.commands]
        yield _section("Best checkpoint, and going on" if best else "Going on", best + "".join(items))
    if report.config:
        tables = [
            _table(group, [(setting.name, setting.value, setting.default) for setting in settings])
            for group, settings in report.settings.items()
        ]
        note = "<p>Bold is what differs from the defaults.</p>"
        yield _section("Configuration", f'{note}<div class="tables">{"".join(tables)}</div>')
    if report.environments:
        tables = [
            _table(f"from step {entry['from_step']:,}", [(name, environment_text(entry[name]), True) for name in entry])
            for entry in report.environments
        ]
        yield _section("Environment", f'<div class="tables">{"".join(tables)}</div>')


def _charts(report: Report) -> Iterator[str]:
    losses, others = loss_chart(report), [chart for chart in other_charts(report) if chart.series]
    if losses.series:
        # Two drawings, of which a page shows the one that suits its width: letters do not grow and shrink with it.
        drawings = draw_chart(losses, width=940, height=360), draw_chart(losses, height=320)
        pictures = "".join(
            f'<div class="{kind}">{svg}</div>' for kind, svg in zip(("wide", "narrow"), drawings, strict=True)
        )
        yield f"<figure>{pictures}{_caption(losses)}</figure>"
    if others:
        figures = [f"<figure>{draw_chart(chart)}{_caption(chart)}</figure>" for chart in others]
        yield f'<div class="charts">{"".join(figures)}</div>'


def _caption(chart: Chart) -> str:
    """Return where each curve ends, in words; the values under a pointer take their place."""
    last = [
        f"{curve.name} {grouped_number(curve.points[-1][1] or 0)}"
        for curve in chart.series
        if curve.style in ("line", "marked")
    ]
    return f"<figcaption>At the end: {_text(', '.join(last))}</figcaption>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _table(title: str, rows: Sequence[tuple[str, str, bool]]) -> str:
    """Return a table of names and values; a value that is not `usual` is bold."""
    lines = [
        f"<tr><th>{_text(name)}</th><td>{_text(value) if usual else f'<b>{_text(value)}</b>'}</td></tr>"
        for name, value, usual in rows
    ]
    return f"<article><h3>{_text(title)}</h3><table><tbody>{''.join(lines)}</tbody></table></article>"


def _text(text: Any) -> str:
    return escape(printable(str(text)))


def _style() -> str:
    light, dark = (
        "; ".join(f"--{name.replace('_', '-')}: {color}" for name, color in p.items()) for p in (LIGHT, DARK)
    )
    return (
        f":root {{ color-scheme: light dark; --font: {MONOSPACED}; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{_STYLE}"
    )


_PAGE = """<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{title}: {name}</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="run">training run {name}</p>
<h1>{title}</h1>
<p class="model">{model}</p>
<p class="outcome"><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5"
 r="5" fill="{color}"/></svg>{outcome}</p>
</header>
<main>
{sections}
</main>
<footer>Written from the files of the run's folder; <code>tgc report</code> writes it anew.</footer>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """* { box-sizing: border-box }
body { max-width: 1020px; margin: 0 auto; padding: 40px 24px 60px; background: var(--paper); color: var(--text);
  font: 15px/1.55 system-ui, sans-serif }
p { margin: 0 0 8px }
h1 { margin: 0 0 6px; font-size: 30px; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere }
h2 { margin: 44px 0 14px; font-size: 19px }
h3 { display: flex; justify-content: space-between; margin: 0 0 8px; font-size: 14px; font-weight: 600 }
h3 span, .run, .model, .note, dt, th, figcaption, footer { color: var(--muted); font-weight: 400 }
.run { margin: 0 0 6px; font-size: 13px; overflow-wrap: anywhere }
.outcome { display: flex; gap: 10px; align-items: baseline; margin: 14px 0 0; overflow-wrap: anywhere }
.outcome svg { flex: none; width: 10px; height: 10px }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 28px 0 }
.numbers > div, figure, article { background: var(--box); border: 1px solid var(--line); border-radius: 12px }
.numbers > div { padding: 12px 16px }
dt, .note, figcaption { font-size: 13px }
dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums }
.numbers .note { font-size: 13px; font-weight: 400 }
figure { margin: 16px 0; padding: 4px 4px 10px; min-width: 0 }
figure svg { display: block; width: 100%; height: auto; touch-action: pan-y }
figcaption { padding: 0 14px; min-height: 1.55em; font-variant-numeric: tabular-nums }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 16px }
.charts figure { margin: 0 }
.narrow { display: none }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 16px;
  align-items: start }
.tables { columns: 400px; column-gap: 16px }
.tables article { break-inside: avoid; margin-bottom: 16px }
article { padding: 14px 16px; min-width: 0 }
pre, code { font: 13px/1.5 var(--font) }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate }
section > pre { margin: 0 0 16px; padding: 10px 14px; background: var(--box); border: 1px solid var(--line);
  border-radius: 8px }
.events { margin: 0; padding-left: 20px }
.events b { font-weight: 600; font-variant-numeric: tabular-nums }
table { width: 100%; border-collapse: collapse; font-size: 13px }
th, td { padding: 4px 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top }
th { padding-right: 16px; width: 40% }
td { overflow-wrap: anywhere }
footer { margin-top: 48px; font-size: 13px }
@media (max-width: 700px) {
  body { padding: 24px 14px 40px }
  .wide { display: none }
  .narrow { display: block }
  .numbers { grid-template-columns: 1fr 1fr }
}
@media print { figure, article, .numbers > div { break-inside: avoid } }
"""
