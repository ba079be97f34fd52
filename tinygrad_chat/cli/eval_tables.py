"""What `tgc eval` found, as tables for a terminal and as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinygrad_chat.cli.table import UNKNOWN, Column, open_console, print_table
from tinygrad_chat.formatting import decimal_number, short_number

if TYPE_CHECKING:
    from tinygrad_chat.evaluation.text import TextEvaluation
    from tinygrad_chat.runs.scores import TaskResult

MEAN = "mean, centred"


@dataclass
class Evaluated:
    """Results of a run: its `texts` and `tasks` so far, and the `error` that ended its evaluation."""

    run: str
    texts: list[TextEvaluation] = field(default_factory=list)
    tasks: list[TaskResult] = field(default_factory=list)
    error: str = ""


def as_objects(found: Sequence[Evaluated]) -> dict[str, Any]:
    """Return all results, ready for JSON."""
    from tinygrad_chat.runs.scores import mean_centred

    return {
        "evaluations": [{"run": each.run, **text.to_json()} for each in found for text in each.texts],
        "tasks": [{"run": each.run, **task.to_json()} for each in found for task in each.tasks],
        "mean_centred": {each.run: mean_centred(each.tasks) for each in found if each.tasks},
        "failed": [{"run": each.run, "error": each.error} for each in found if each.error],
    }


def print_tables(found: Sequence[Evaluated], *, examples: int, markdown: bool) -> None:
    """Print a table of the texts, one of the tasks, and so many `examples` of each task."""
    tables = [table for table in (_texts(found), _tasks(found)) if table[0].cells]
    for number, columns in enumerate(tables):
        if number:
            print()
        if markdown:
            from tinygrad_chat.reports.markdown import escaped, table

            head, rows = zip(*((escaped(column.name), map(escaped, column.cells)) for column in columns), strict=True)
            numbers = sum(not column.left for column in columns)
            for line in table(head, list(zip(*rows, strict=True)), right=numbers if columns[0].left else 0):
                print(line)
        else:
            print_table(open_console(sys.stdout), columns, keep=3)
    for line in _examples(found, examples):
        print(line)


def _texts(found: Sequence[Evaluated]) -> list[Column]:
    """Return the results on texts as columns, in order of importance."""
    rows = [(each.run, text) for each in found for text in each.texts]
    evaluations = [text.evaluation for _, text in rows]
    return [
        Column("run", [run for run, _ in rows], left=True),
        Column("bits/byte", [decimal_number(each.bits_per_byte) for each in evaluations]),
        Column("text", [text.source for _, text in rows], left=True),
        Column("bytes", [f"{each.bytes:,}" for each in evaluations]),
        Column("bytes/token", [f"{text.bytes_per_token:.2f}" for _, text in rows]),
        Column("loss", [decimal_number(each.loss) for each in evaluations]),
        Column("perplexity", [short_number(each.perplexity) for each in evaluations]),
        Column("tokens", [f"{each.tokens:,}" for each in evaluations]),
        Column("tokens/s", [f"{text.evaluation.tokens / text.seconds:,.0f}" for _, text in rows]),
    ]


def _tasks(found: Sequence[Evaluated]) -> list[Column]:
    """Return the scores, a row per task and a column per run; more columns if there is only one run."""
    from tinygrad_chat.runs.scores import mean_centred

    asked = [each for each in found if each.tasks]
    names = list(dict.fromkeys(task.task for each in asked for task in each.tasks))
    columns = [Column("task", [*names, MEAN] if names else [], left=True)]
    for each in asked:
        by_name = {task.task: task for task in each.tasks}
        cells = [score(by_name[name]) if name in by_name else UNKNOWN for name in names]
        title = "solved" if len(asked) == 1 else each.run
        columns.append(Column(title, [*cells, f"{mean_centred(each.tasks):.3f}"]))
    if len(asked) == 1:
        tasks = asked[0].tasks
        columns += [
            Column("of", [*(f"{task.count:,}" for task in tasks), ""]),
            Column("by chance", [*(f"{task.chance:.0%}" for task in tasks), ""]),
            Column("centred", [*(f"{task.centred:.3f}" for task in tasks), ""]),
            Column("seconds", [*(f"{task.seconds:.1f}" for task in tasks), ""]),
        ]
    return columns


def score(result: TaskResult) -> str:
    """Return an accuracy with its standard error, in percent.

    >>> from tinygrad_chat.runs.scores import TaskResult
    >>> score(TaskResult("sums", 97, 100, 0.0, 1, 2.0))
    '97.0 ± 1.9 %'
    """
    return f"{100 * result.accuracy:.1f} ± {100 * result.error:.1f} %"


def _examples(found: Sequence[Evaluated], most: int) -> Iterator[str]:
    for each in found:
        for task in each.tasks:
            for example in task.examples[:most]:
                yield ""
                yield f"{each.run}, {task.task}: {'solved' if example.solved else 'not solved'}"
                yield f"  asked     {example.question}"
                yield f"  answered  {example.answer}"
                if not example.solved:
                    yield f"  expected  {example.expected}"
