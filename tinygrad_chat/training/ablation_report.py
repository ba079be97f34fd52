"""What an ablation leaves for people: a table, a spreadsheet and a plot."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from tinygrad_chat.errors import BackendError
from tinygrad_chat.training.ablation import Cell, label
from tinygrad_chat.training.storage import write_whole

INK, ACCENT = "#1f2430", "#2f6fde"


def write_reports(cells: Sequence[Cell], folder: Path, *, title: str) -> None:
    """Write results.csv (a run a line) and results.md (a cell a line, best first) into `folder`."""
    write_whole(folder / "results.csv", _csv(folder).encode())
    write_whole(folder / "results.md", f"# {title}\n\n{markdown(cells)}".encode())


def markdown(cells: Sequence[Cell]) -> str:
    """Return a table: a line a cell with mean validation loss, 95 % confidence interval, seeds and parameters."""
    names = list(cells[0].choices)
    head = [*names, "val_loss", "95 % interval", "seeds", "parameters"]
    lines = [head, ["---"] * len(names) + ["---:"] * 4]
    for cell in cells:
        values = [part.partition("=")[2] for part in label(cell.choices).split(",")]
        interval = "" if cell.interval is None else f"± {cell.interval:.4f}"
        lines.append([*values, f"{cell.mean:.4f}", interval, str(len(cell.losses)), f"{cell.parameters:,}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_plot(cells: Sequence[Cell], folder: Path, *, title: str) -> None:
    """Draw every run and each cell's mean with its interval: results.png and results.svg.

    Raises BackendError where matplotlib, the extra `plots`, is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError("the plot needs matplotlib: pip install 'tinygrad-chat[plots]'") from error
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
    for kind in ("png", "svg"):
        content = io.BytesIO()
        figure.savefig(content, format=kind, dpi=150)
        write_whole(folder / f"results.{kind}", content.getvalue())


def _csv(folder: Path) -> str:
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    content = io.StringIO()
    writer = csv.DictWriter(content, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()
