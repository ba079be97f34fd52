"""`tgc compare`."""

from __future__ import annotations

import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.runs import GAP, UNKNOWN, open_console, print_table
from tinygrad_chat.errors import BackendError, UsageError
from tinygrad_chat.formatting import duration

if TYPE_CHECKING:
    from rich.console import Console

    from tinygrad_chat.reports.comparison import Comparison

LETTERS = string.ascii_uppercase
COLORS = (33, 208, 35, 170, 178, 197, 44, 245)  # of the 256 that terminals share; readable on black and on white
PLOT_WIDTH, PLOT_HEIGHT = 100, 14  # characters, at most
LONGEST_VALUE = 16  # characters of a setting


def compare(
    runs: Annotated[list[str], typer.Argument(help="runs' folders, or their names below runs/", metavar="A B ...")],
    out: Annotated[str, typer.Option(help="folder for compare.png and compare.svg")] = ".",
) -> None:
    """Lay the losses of two or more runs over each other, at equal tokens and at equal time.

    Prints a table and a plot, and leaves the plot as compare.png and compare.svg.
    """
    from tinygrad_chat.files import explained
    from tinygrad_chat.reports.comparison import compare_runs, write_comparison_plot
    from tinygrad_chat.reports.summary import find_run

    if len(runs) > len(LETTERS):
        raise UsageError(f"compare: expected at most {len(LETTERS)} runs, received {len(runs)}")
    for name in runs:
        if runs.count(name) > 1:
            raise UsageError(f"compare: {name}: is given twice; name each run once")
    comparison = compare_runs({name: find_run(name, command="compare") for name in runs})
    console = open_console(sys.stdout)
    _print_names(console, comparison)
    _print_tables(console, comparison)
    try:
        for axis in ("tokens", "seconds"):
            console.print()
            _print_plot(console, comparison, axis)
        folder = Path(out).expanduser()
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        paths = write_comparison_plot(comparison, folder)
    except BackendError as error:
        print(f"\n{error}")
    else:
        print(f"\nplots: {' and '.join(map(str, paths))}")


def _print_names(console: Console, comparison: Comparison) -> None:
    from rich.text import Text

    for number, run in enumerate(comparison.runs):
        console.print(Text.assemble((LETTERS[number], _style(number)), f"  {run.name}"), soft_wrap=True)
    console.print()


def _print_tables(console: Console, comparison: Comparison) -> None:
    """Print what there is to compare: a column for each run, in several tables where they are more than fit."""
    rows = list(_rows(comparison))
    labels = [label for label, _ in rows]
    columns = {LETTERS[number]: [values[number] for _, values in rows] for number in range(len(comparison.runs))}
    heads = {letter: _style(number) for number, letter in enumerate(columns)}
    room = console.width - max(map(len, labels))
    while columns:
        fitting, used = 0, 0
        for cells in columns.values():
            used += GAP + max(map(len, cells))
            if fitting and used > room:
                break
            fitting += 1
        shown = {letter: columns.pop(letter) for letter in list(columns)[:fitting]}
        print_table(console, {"": labels, **shown}, styles=[""] * len(rows), left=("",), heads=heads)
        if columns:
            console.print()


def _rows(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yield what the table says: a label and a value for each run."""
    runs, unit = comparison.runs, comparison.unit
    tokens, seconds = comparison.reached_by_all("tokens"), comparison.reached_by_all("seconds")
    yield f"best {unit}", [f"{run.best:.4f}" for run in runs]
    yield f"{unit} at {tokens:,.0f} tokens", [f"{run.at('tokens', tokens):.4f}" for run in runs]
    yield f"{unit} after {duration(seconds)}", [f"{run.at('seconds', seconds):.4f}" for run in runs]
    yield "tokens/s", [_known(run.summary.tokens_per_second) for run in runs]
    yield "tokens", [_known(run.summary.tokens) for run in runs]
    yield "time", [UNKNOWN if run.summary.seconds is None else duration(run.summary.seconds) for run in runs]
    yield "parameters", [_known(run.summary.parameters) for run in runs]
    for name, values in comparison.differing_settings().items():
        yield name, [_shorten(value) for value in values]


def _known(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _shorten(value: Any) -> str:
    from tinygrad_chat.config.training import UNBOUNDED
    from tinygrad_chat.experiments.ablation import shown

    text = UNKNOWN if value is None or value == UNBOUNDED else shown(value)
    return text if len(text) <= LONGEST_VALUE else f"…{text[1 - LONGEST_VALUE :]}"


def _style(number: int) -> str:
    return f"bold color({COLORS[number % len(COLORS)]})"


def _print_plot(console: Console, comparison: Comparison, axis: str) -> None:
    """Draw validation losses as dots and training losses as lines, in the runs' colours; without colours, validation
    losses as lines of the runs' letters. Raises BackendError where plotext is not installed."""
    from tinygrad_chat.drawing.scale import Scale, tick_texts
    from tinygrad_chat.reports.comparison import PLOTS_EXTRA

    try:
        import plotext
    except ImportError as error:
        raise BackendError(PLOTS_EXTRA) from error
    colored = console.is_terminal and not console.no_color
    figure = plotext.figure
    figure.clear.all()
    figure.theme("colorless")  # the terminal keeps its own background
    figure.plot_size(min(PLOT_WIDTH, console.width), PLOT_HEIGHT)
    bottom, top = comparison.losses_shown()
    longest = max(float(curve.along(axis)[-1]) for run in comparison.runs for curve in run.curves()) or 1.0
    for number, run in enumerate(comparison.runs):
        color = COLORS[number % len(COLORS)]
        if not colored:
            figure.draw(figure.signal(*run.validation.below(top, axis), marker=LETTERS[number]).lines())
            continue
        figure.draw(figure.signal(*run.training.below(top, axis), marker=plotext.marker("braille").fill(color)).lines())
        figure.draw(figure.signal(*run.validation.below(top, axis), marker=plotext.marker("dot").fill(color)))
    for name, low, high, most in (("x", 0.0, longest, 6), ("y", bottom, top, 5)):
        ticks = Scale(low, high, 0, 1).ticks(most)
        figure.ruler(name).lim(low, high).ticks(ticks, tick_texts(ticks))
    print(f"{comparison.unit} over {axis}{' (dots; lines: training)' if colored else ''}")
    print(figure.build().string(colorless=not colored).rstrip())
