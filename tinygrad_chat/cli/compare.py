"""`tgc compare`."""

from __future__ import annotations

import string
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.streams import say
from tinygrad_chat.cli.table import GAP, UNKNOWN, Column, can_show, open_console, print_table
from tinygrad_chat.errors import UsageError
from tinygrad_chat.formatting import BLOCKS, DIGITS, decimal_number, duration, one_line, quoted, sparkline

if TYPE_CHECKING:
    from rich.console import Console

    from tinygrad_chat.reports.comparison import Comparison

LETTERS = string.ascii_uppercase
COLORS = (33, 208, 35, 170, 178, 197, 44, 245)  # of the 256 that terminals share; readable on black and on white
WIDEST_CURVE = 72  # characters
LONGEST_VALUE = 16  # characters of a setting


def compare(
    runs: Annotated[list[str], typer.Argument(help="runs' folders, or their names below runs/", metavar="A B ...")],
    out: Annotated[str, typer.Option(help="folder for compare.svg")] = ".",
    png: Annotated[bool, typer.Option("--png", help="also write compare.png (needs the extra plots)")] = False,
) -> None:
    """Compare the losses of two or more runs, at equal tokens (or bytes, where those differ) and at equal time.

    Prints tables and the shapes of the curves, and writes the curves to compare.svg.
    """
    from tinygrad_chat.drawing.png import expect_matplotlib
    from tinygrad_chat.files import explained, user_path
    from tinygrad_chat.reports.comparison import BITS, compare_runs
    from tinygrad_chat.reports.comparison_plot import write_comparison_plot
    from tinygrad_chat.reports.summary import find_run

    if len(runs) > len(LETTERS):
        raise UsageError(f"compare: expected at most {len(LETTERS)} runs, received {len(runs)}")
    for name in runs:
        if runs.count(name) > 1:
            raise UsageError(f"compare: {name}: is given twice; name each run once")
    if png:
        expect_matplotlib("--png")
    comparison = compare_runs({name: find_run(name, command="compare") for name in runs})
    for name, lack in comparison.left_out.items():
        say(f"{name}: {lack}; left out")
    if comparison.unit == BITS:
        say(
            f"{BITS}: each run on its own held-out text, up to --eval-tokens; on one text: "
            f"tgc eval {' '.join(quoted(run.name) for run in comparison.runs)} --data FILE"
        )
    console = open_console(sys.stdout)
    _print_names(console, comparison)
    _print_tables(console, comparison)
    for axis in comparison.axes:
        console.print()
        _print_curves(console, comparison, axis)
    folder = user_path(out)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = write_comparison_plot(comparison, folder, png=png)
    print(f"\ncurves: {' and '.join(map(str, paths))}")


def _print_names(console: Console, comparison: Comparison) -> None:
    from rich.text import Text

    for number, run in enumerate(comparison.runs):
        console.print(Text.assemble((LETTERS[number], _style(number)), f"  {one_line(run.name)}"), soft_wrap=True)
    console.print()


def _print_tables(console: Console, comparison: Comparison) -> None:
    """Print the comparison, a column per run, in several tables if they do not fit into one."""
    rows = list(_rows(comparison))
    labels = Column("", [label for label, _ in rows], left=True)
    columns = [
        Column(LETTERS[number], [values[number] for _, values in rows], style=_style(number))
        for number in range(len(comparison.runs))
    ]
    while columns:
        fitting, room = 1, console.width - labels.width - GAP - columns[0].width
        while fitting < len(columns) and room >= GAP + columns[fitting].width:
            room -= GAP + columns[fitting].width
            fitting += 1
        print_table(console, [labels, *columns[:fitting]])
        columns = columns[fitting:]
        if columns:
            console.print()


def _print_curves(console: Console, comparison: Comparison, axis: str) -> None:
    """Print a sparkline of each run's validation losses, all on the same scale, one below another.

    A run that ends earlier has a shorter line; losses above the range of the plots are clipped to the top.
    """
    import numpy as np
    from rich.text import Text

    bottom, top = comparison.losses_shown()
    longest = max(float(run.validation.along(axis)[-1]) for run in comparison.runs) or 1.0
    columns = min(WIDEST_CURVE, console.width - 3)
    amounts = (np.arange(columns) + 0.5) * longest / columns
    reach = duration(longest) if axis == "seconds" else f"{longest:,.0f}"
    levels = BLOCKS if can_show(sys.stdout, BLOCKS) else DIGITS
    console.print(f"{comparison.unit} over {axis}, up to {reach}: from {top:.4g} down to {bottom:.4g}")
    for number, run in enumerate(comparison.runs):
        reached = amounts[amounts <= run.validation.along(axis)[-1]]
        losses = [run.at(axis, amount) for amount in (reached if reached.size else amounts[:1])]
        shape = sparkline(losses, bottom, top, levels)
        console.print(Text.assemble((LETTERS[number], _style(number)), "  ", (shape, _style(number))), soft_wrap=True)


def _rows(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the table: a label, and a value for each run."""
    runs, unit = comparison.runs, comparison.unit
    amount, _ = comparison.axes
    read, seconds = map(comparison.reached_by_all, comparison.axes)
    yield f"best {unit}", [decimal_number(run.best) for run in runs]
    yield f"{unit} at {read:,.0f} {amount}", [decimal_number(run.at(amount, read)) for run in runs]
    yield f"{unit} after {duration(seconds)}", [decimal_number(run.at("seconds", seconds)) for run in runs]
    yield "tokens/s", [_known(run.summary.tokens_per_second) for run in runs]
    yield "tokens", [_known(run.summary.tokens) for run in runs]
    yield "time", [UNKNOWN if run.summary.seconds is None else duration(run.summary.seconds) for run in runs]
    yield "parameters", [_known(run.summary.parameters) for run in runs]
    for name, values in comparison.differing_settings().items():
        yield name, [_shorten(value) for value in values]


def _known(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _shorten(value: Any) -> str:
    from tinygrad_chat.config.groups import UNBOUNDED
    from tinygrad_chat.experiments.ablation import shown

    if isinstance(value, tuple):
        value = ", ".join(value)
    text = UNKNOWN if value is None or value == UNBOUNDED else shown(value)
    return text if len(text) <= LONGEST_VALUE else f"…{text[1 - LONGEST_VALUE :]}"


def _style(number: int) -> str:
    return f"bold color({COLORS[number % len(COLORS)]})"
