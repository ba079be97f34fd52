"""What came of an ablation: means and confidence intervals, and for people a table, a spreadsheet and a plot."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.errors import BackendError
from tinygrad_chat.experiments.ablation import Ablation, Choices, label, read_rows, shown
from tinygrad_chat.files import write_atomic
from tinygrad_chat.reports.figure import save_figure

INK, ACCENT = "#1f2430", "#2f6fde"


# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Cell:
    """What came of a cell: the final validation losses of its runs, and how many `diverged` before they had one.

    `losses` are in nats a token; `bits_per_byte` are the same in a unit that does not depend on the tokenizer.
    """

    choices: Choices
    parameters: int
    losses: list[float]
    bits_per_byte: list[float]
    diverged: int = 0

    @property
    def mean(self) -> float:
        """The mean loss over the runs; infinite where all diverged."""
        return statistics.fmean(self.losses) if self.losses else math.inf

    @property
    def mean_bits_per_byte(self) -> float:
        """The mean of `bits_per_byte`; infinite where all diverged."""
        return statistics.fmean(self.bits_per_byte) if self.bits_per_byte else math.inf

    @property
    def interval(self) -> float | None:
        """Half the width of the mean loss's 95 % confidence interval by Student's t; None for fewer than two runs."""
        count = len(self.losses)
        if count < 2:
            return None
        return student_t(count - 1) * statistics.stdev(self.losses) / count**0.5


def student_t(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t: from the table, beyond it by its expansion in 1 / degrees.

    >>> student_t(1), round(student_t(16), 2), round(student_t(60), 2)
    (12.706, 2.12, 2.0)
    """
    if degrees <= len(STUDENT_T):
        return STUDENT_T[degrees - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def collect(ablation: Ablation, folder: Path) -> list[Cell]:
    """Return what came of each cell that has a finished run, best first: by loss or, where tokens or texts differ
    between cells, by bits per byte."""
    rows = read_rows(folder)
    cells = []
    for choices in ablation.cells():
        mine = [row for row in rows if row["cell"] == label(choices) and row["seed"] <= ablation.seeds]
        whole = [row for row in mine if not row["diverged"]]
        if mine:
            losses, bits = [row["val_loss"] for row in whole], [row["val_bpb"] for row in whole]
            cells.append(Cell(choices, mine[0]["parameters"], losses, bits, len(mine) - len(whole)))
    by_bits = {"tokenizer", "data", "text_field"} & ablation.varied.keys()
    return sorted(cells, key=lambda cell: cell.mean_bits_per_byte if by_bits else cell.mean)


def write_reports(cells: Sequence[Cell], folder: Path, *, title: str) -> None:
    """Write results.csv (a run a line) and results.md (a cell a line, best first) into `folder`."""
    write_atomic(folder / "results.csv", _csv(folder).encode())
    write_atomic(folder / "results.md", f"# {title}\n\n{markdown(cells)}".encode())


def markdown(cells: Sequence[Cell]) -> str:
    """Return a table: a line a cell with its mean validation loss, 95 % interval, bits per byte, runs, parameters."""
    names = list(cells[0].choices)
    head = [*names, "val_loss", "95 % interval", "bits per byte", "runs", "parameters"]
    lines = [head, ["---"] * len(names) + ["---:"] * 5]
    for cell in cells:
        values = [shown(value) for value in cell.choices.values()]
        interval = "" if cell.interval is None else f"± {cell.interval:.4f}"
        runs = f"{len(cell.losses)}{f', {cell.diverged} diverged' if cell.diverged else ''}"
        numbers = [f"{cell.mean:.4f}", interval, f"{cell.mean_bits_per_byte:.4f}", runs, f"{cell.parameters:,}"]
        lines.append([*values, *numbers])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_plot(cells: Sequence[Cell], folder: Path, *, title: str) -> None:
    """Draw every run and each cell's mean with its interval: results.png and results.svg.

    Raises BackendError where matplotlib, the extra `plots`, is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError("the plot needs matplotlib, the extra plots: pip install matplotlib") from error
    cells = [cell for cell in cells if cell.losses]  # a diverged cell has no place on the axis
    figure = Figure(figsize=(7.5, 1.3 + 0.42 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for row, cell in enumerate(reversed(cells)):
        bar = {"fmt": "|", "color": INK, "markersize": 14, "capsize": 4, "linewidth": 1.4}
        axes.errorbar(cell.mean, row, xerr=cell.interval or 0, **bar)
        axes.plot(cell.losses, [row] * len(cell.losses), "o", color=ACCENT, alpha=0.7, markeredgewidth=0, zorder=3)
    axes.set_yticks(range(len(cells)), [label(cell.choices).replace(",", "  ") for cell in reversed(cells)])
    axes.set_xlabel("validation loss, nats a token (dots: runs; bars: mean and 95 % interval)", fontsize=9)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.grid(axis="x", color="#dde1e8")
    axes.set_axisbelow(True)
    axes.set_ylim(-0.6, len(cells) - 0.4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    save_figure(figure, folder, "results")


def _csv(folder: Path) -> str:
    rows = read_rows(folder)
    content = io.StringIO()
    writer = csv.DictWriter(content, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()
