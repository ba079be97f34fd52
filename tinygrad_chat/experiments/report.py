"""The results of an ablation: means and confidence intervals, as a table, a spreadsheet and a plot."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.config.groups import WHAT_TOKENS_ARE
from tinygrad_chat.drawing.intervals import Interval, IntervalChart, draw_intervals
from tinygrad_chat.drawing.png import intervals_as_png
from tinygrad_chat.experiments.ablation import Ablation, Choices, label, shown
from tinygrad_chat.experiments.planned import PlannedRun
from tinygrad_chat.experiments.results import read_rows
from tinygrad_chat.files import write_atomic
from tinygrad_chat.formatting import decimal_number, printable
from tinygrad_chat.reports.markdown import escaped

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Cell:
    """The results of a cell: the final validation losses of its runs, how many runs `diverged` instead, and how many
    `failed`, which do not count as results.

    `losses` are in nats per token; `bits_per_byte` are the same in a unit that does not depend on the tokenizer.
    """

    choices: Choices
    parameters: int | None
    losses: list[float]
    bits_per_byte: list[float]
    diverged: int = 0
    failed: int = 0

    @property
    def mean(self) -> float:
        """The mean loss over the runs; infinite if all diverged."""
        return statistics.fmean(self.losses) if self.losses else math.inf

    @property
    def mean_bits_per_byte(self) -> float:
        """The mean of `bits_per_byte`; infinite if all diverged."""
        return statistics.fmean(self.bits_per_byte) if self.bits_per_byte else math.inf

    @property
    def interval(self) -> float | None:
        """Half the width of the mean loss's 95 % confidence interval by Student's t; None for fewer than two runs."""
        count = len(self.losses)
        if count < 2:
            return None
        return student_t(count - 1) * statistics.stdev(self.losses) / count**0.5


def student_t(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t: from the table, beyond it by an expansion in 1 / degrees.

    >>> student_t(1), round(student_t(16), 2), round(student_t(60), 2)
    (12.706, 2.12, 2.0)
    """
    if degrees <= len(STUDENT_T):
        return STUDENT_T[degrees - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def collect(ablation: Ablation, folder: Path, failed: Sequence[PlannedRun] = ()) -> list[Cell]:
    """Return the results of each cell that has a finished or `failed` run, best first: by loss or, if tokens or texts
    differ between cells, by bits per byte."""
    rows = read_rows(folder)
    cells = []
    for choices in ablation.cells():
        mine = [row for row in rows if row["cell"] == label(choices) and row["seed"] <= ablation.seeds]
        mine.sort(key=lambda row: row["seed"])  # not by which ended first
        whole = [row for row in mine if not row["diverged"]]
        failures = sum(run.choices == choices for run in failed)
        if mine or failures:
            losses, bits = [row["val_loss"] for row in whole], [row["val_bpb"] for row in whole]
            parameters = mine[0]["parameters"] if mine else None
            cells.append(Cell(choices, parameters, losses, bits, len(mine) - len(whole), failures))
    by_bits = ablation.varied.keys() & set(WHAT_TOKENS_ARE)
    return sorted(cells, key=lambda cell: cell.mean_bits_per_byte if by_bits else cell.mean)


def write_reports(cells: Sequence[Cell], folder: Path, *, title: str) -> None:
    """Write results.csv (one run per line) and results.md (one cell per line, best first) into `folder`."""
    write_atomic(folder / "results.csv", _csv(folder).encode())
    write_atomic(folder / "results.md", f"# {escaped(title)}\n\n{markdown(cells)}".encode())


def table(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Return columns by name, with one cell per row: the varied settings, then mean validation loss, 95 % interval,
    bits per byte, runs and parameters."""
    varied = {name: [shown(cell.choices[name]) for cell in cells] for name in cells[0].choices}
    return {
        **varied,
        "val_loss": [decimal_number(cell.mean) for cell in cells],
        "95 % interval": ["" if cell.interval is None else f"± {decimal_number(cell.interval)}" for cell in cells],
        "bits per byte": [decimal_number(cell.mean_bits_per_byte) for cell in cells],
        "runs": [_runs(cell) for cell in cells],
        "parameters": ["" if cell.parameters is None else f"{cell.parameters:,}" for cell in cells],
    }


def _runs(cell: Cell) -> str:
    others = {"diverged": cell.diverged, "failed": cell.failed}
    return ", ".join([str(len(cell.losses)), *(f"{number} {what}" for what, number in others.items() if number)])


def markdown(cells: Sequence[Cell]) -> str:
    """Return the table as Markdown."""
    columns, words = table(cells), len(cells[0].choices)
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    rows = [map(escaped, row) for row in zip(*columns.values(), strict=True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [columns, rule, *rows])


def write_plot(cells: Sequence[Cell], folder: Path, *, title: str, png: bool = False) -> None:
    """Draw every run and each cell's mean with its interval: results.svg, and results.png."""
    rows = [
        Interval(label(cell.choices).replace(",", "  "), cell.losses, cell.mean, cell.interval)
        for cell in cells
        if cell.losses  # a cell without losses has no place on the axis
    ]
    chart = IntervalChart(title, rows, "validation loss, nats a token (dots: runs; bars: mean and 95 % interval)")
    write_atomic(folder / "results.svg", draw_intervals(chart).encode())
    if png:
        write_atomic(folder / "results.png", intervals_as_png(chart))


def _csv(folder: Path) -> str:
    rows = read_rows(folder)
    content = io.StringIO()
    writer = csv.DictWriter(content, list(rows[0]) if rows else [], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return printable(content.getvalue())
