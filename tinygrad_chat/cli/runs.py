"""`tgc runs`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from tinygrad_chat.errors import UsageError
from tinygrad_chat.formatting import duration

if TYPE_CHECKING:
    from rich.console import Console

    from tinygrad_chat.reports.summary import RunSummary

GAP = 2  # columns between two cells
UNKNOWN = "-"
IMPORTANCE = (
    *("run", "outcome", "val_loss", "steps", "bits/byte", "tokens/s"),
    *("time", "tokens", "parameters"),
)  # the first stay where there is not room for all
SHORTEST_NAME = 12
STYLES = {"running": "green", "finished": "", "interrupted": "yellow", "killed": "yellow"}


def runs(
    folder: Annotated[str, typer.Argument(help="where the runs are, or one run", show_default=True)] = "runs",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line for each run")] = False,
) -> None:
    """List the runs in a folder: how each ended, how fast it was, its best evaluation. The newest stands last."""
    from tinygrad_chat.reports.summary import find_runs, is_run, summarize_run

    path = Path(folder).expanduser()
    if not path.is_dir() and (Path("runs") / path).is_dir():
        path = Path("runs") / path
    if not path.is_dir():
        if folder == "runs":
            print("no runs/ here yet; train a model with: tgc train", file=sys.stderr)
            return
        raise UsageError(f"{folder}: no such folder; expected one that holds runs, as runs/ does")
    found, others = ([summarize_run(path)], []) if is_run(path) else find_runs(path)
    if as_json:
        for run in found:
            print(json.dumps({"run": str(run.path), **_known(run)}))
        return
    if found:
        console = open_console(sys.stdout)
        table = {name: [row[name] for row in map(_cells, found)] for name in IMPORTANCE}
        styles = [STYLES.get(run.outcome, "red") for run in found]
        shown = _that_fit(table, console.width)
        print_table(console, shown, styles=styles, left=("run", "outcome"))
        if len(shown) < len(table):
            console.print(f"\nno room for: {', '.join(name for name in table if name not in shown)}")
        for run in found:
            if run.outcome == "damaged":
                print(f"\n{run.path.name}: {run.reason}")
    else:
        print(f"no run in {path}; train one there with: tgc train --out {path / 'NAME'}", file=sys.stderr)
    if others:
        names = ", ".join(other.name for other in others[:3]) + (", ..." if others[3:] else "")
        print(f"left out, as they hold no run: {names}", file=sys.stderr)


def open_console(stream: TextIO) -> Console:
    """Return a console as wide as the terminal; in a pipe as wide as anything, and without colours."""
    from rich.console import Console

    return Console(file=stream, highlight=False, width=None if stream.isatty() or "COLUMNS" in os.environ else 10_000)


def print_table(
    console: Console,
    columns: Mapping[str, Sequence[str]],
    *,
    styles: Sequence[str],
    left: Sequence[str],
    heads: Mapping[str, str] | None = None,
) -> None:
    """Print columns of cells, those named in `left` aligned left and the others right; `styles` has one for each row.

    `heads` are styles of columns' names, where they are not merely bold.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="none")
    for name in columns:
        justify = "left" if name in left else "right"
        table.add_column(escape(name), justify=justify, header_style=(heads or {}).get(name, "bold"), no_wrap=True)
    for style, *cells in zip(styles, *columns.values(), strict=True):
        table.add_row(*map(escape, cells), style=style)
    console.print(table)


def _known(run: RunSummary) -> dict[str, object]:
    record = dataclasses.asdict(run)
    del record["path"]
    return record


def _cells(run: RunSummary) -> dict[str, str]:
    def shown(value: float | None, form: str) -> str:
        return UNKNOWN if value is None else f"{value:{form}}"

    steps = shown(run.step, ",")
    if run.steps is not None and run.step != run.steps:
        steps += f"/{run.steps:,}"
    return {
        "run": run.path.resolve().name,
        "outcome": run.outcome,
        "val_loss": shown(run.best_val_loss, ".4f"),
        "steps": steps,
        "bits/byte": shown(run.val_bpb, ".4f"),
        "tokens/s": shown(run.tokens_per_second, ",.0f"),
        "time": UNKNOWN if run.seconds is None else duration(run.seconds),
        "tokens": shown(run.tokens, ","),
        "parameters": shown(run.parameters, ","),
    }


def _that_fit(table: dict[str, list[str]], room: int) -> dict[str, list[str]]:
    """Leave out what is least important where a terminal has no room; names are shortened only at the very last."""
    widths = {name: max(map(len, (name, *cells))) for name, cells in table.items()}
    chosen = list(table)
    while len(chosen) > 3 and sum(widths[name] + GAP for name in chosen) - GAP > room:
        chosen.pop()
    name_room = max(SHORTEST_NAME, room - sum(widths[name] + GAP for name in chosen[1:]))
    shortened = [name if len(name) <= name_room else f"{name[: name_room - 1]}…" for name in table["run"]]
    return {**{name: table[name] for name in chosen}, "run": shortened}
