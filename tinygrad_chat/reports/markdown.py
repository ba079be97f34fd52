"""A run's report as Markdown: one file, whose only picture is a sparkline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from tinygrad_chat.formatting import decimal_number, printable, sparkline
from tinygrad_chat.reports.content import Report, environment_text
from tinygrad_chat.reports.samples import spread
from tinygrad_chat.reports.scores import examples, score_rows

MAX_EVALUATIONS = 12  # lines of the table
MAX_BLOCKS = 40


def markdown(report: Report) -> str:
    """Return the whole report, ending in a newline."""
    return "\n\n".join(filter(None, map("\n".join, _sections(report)))) + "\n"


def _sections(report: Report) -> Iterator[list[str]]:
    yield [f"# {escaped(report.title)}"]
    yield [f"**{escaped(report.outcome)}**"]
    yield [escaped(report.model)]
    yield list(table(("", "", ""), [(name, f"**{value}**", note) for name, value, note in report.key_numbers]))
    if report.evaluations:
        losses = [line["val_loss"] for line in report.evaluations]
        yield ["## Validation loss"]
        shape = sparkline(spread(losses, MAX_BLOCKS), min(losses), max(losses))
        yield [f"`{shape}` from {decimal_number(losses[0])} to {decimal_number(losses[-1])}, in nats a token"]
        rows = [
            (f"{line['step']:,}", decimal_number(line["val_loss"]), decimal_number(line["val_bpb"]))
            for line in spread(report.evaluations, MAX_EVALUATIONS)
        ]
        yield list(table(("step", "val loss", "bits per byte"), rows, right=3))
    if report.scores:
        yield [f"## Problems solved at step {report.scores[-1].step:,}"]
        rows = [(escaped(row.task), *row[1:]) for row in score_rows(report)]
        yield list(table(("task", "solved", "problems", "by chance", "centred"), rows, right=4))
        for task, example in examples(report):
            yield [f"{escaped(task)}, {'solved' if example.solved else 'not solved'}:"]
            expected = "" if example.solved else f"\n(expected) {example.expected}"
            yield list(_fenced(f"> {example.question}\n{example.answer}{expected}"))
    if report.events:
        yield ["## What happened"]
        yield [f"- step {step:,}: {escaped(what)}" for step, what in report.events]
    if report.samples:
        yield ["## Samples"]
        for step, text in report.samples:
            yield [f"After {step:,} steps:"]
            yield list(_fenced(text))
    if report.commands:
        yield ["## Next steps"]
    for words, command in report.commands:
        yield [f"To {words}:"]
        yield list(_fenced(command, "sh"))
    if report.config:
        yield ["## Configuration"]
        settings = [setting for group in report.settings.values() for setting in group]
        yield list(table(("setting", "value"), [(f"`{setting.name}`", escaped(setting.value)) for setting in settings]))
    if report.environments:
        yield ["## Environment"]
    for entry in report.environments:
        rows = [(escaped(name), escaped(environment_text(value))) for name, value in entry.items()]
        yield list(table(("", ""), rows))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> Iterator[str]:
    """Yield a table's lines; its last `right` columns are aligned right."""
    if not rows:
        return
    yield _row(head)
    yield _row(["---"] * (len(head) - right) + ["---:"] * right)
    for row in rows:
        yield _row(row)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return a text in one line, escaped so that Markdown shows it literally."""
    return re.sub(r"([\\`*_\[\]<>&|#])", r"\\\1", " ".join(printable(text).split()))


def _fenced(text: str, language: str = "text") -> Iterator[str]:
    """Yield a text as a fenced block, whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    yield f"{fence}{language}"
    yield printable(text)
    yield fence
