"""`tgc runs`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.streams import print_json
from tinygrad_chat.cli.table import UNKNOWN, Column, open_console, print_table
from tinygrad_chat.errors import UsageError
from tinygrad_chat.files import real_path
from tinygrad_chat.formatting import decimal_number, duration, one_line, quoted

if TYPE_CHECKING:
    from tinygrad_chat.reports.summary import RunSummary

IMPORTANCE = (
    *("run", "outcome", "val_loss", "steps", "from", "bits/byte", "tokens/s"),
    *("time", "tokens", "parameters"),
)  # the first stay if there is no room for all
STYLES = {"running": "green", "finished": "", "interrupted": "yellow", "killed": "yellow", "imported": ""}


def runs(
    folder: Annotated[str, typer.Argument(help="where the runs are, or one run", show_default=True)] = "runs",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line for each run")] = False,
) -> None:
    """List the runs in a folder: how each ended, how fast it was, its best evaluation. The newest stands last."""
    from tinygrad_chat.files import is_folder, user_path
    from tinygrad_chat.reports.summary import find_runs, may_be_run, summarize_run
    from tinygrad_chat.runs.finding import explain_missing

    path = user_path(folder)
    if not is_folder(path, follow=True) and is_folder(Path("runs") / path, follow=True):
        path = Path("runs") / path
    if not is_folder(path, follow=True):
        if folder == "runs":
            print("no runs/ here yet; train a model with: tgc train", file=sys.stderr)
            return
        missing = explain_missing(path) or "no such folder; expected one that holds runs, as runs/ does"
        raise UsageError(f"{folder}: {missing}")
    found, others = ([summarize_run(path)], []) if may_be_run(path) else find_runs(path)
    if as_json:
        for run in found:
            print_json({"run": str(run.path), **_known(run)})
        return
    if found:
        console = open_console(sys.stdout)
        rows = [_cells(run) for run in found]
        names = [name for name in IMPORTANCE if name != "from" or any(run.parent for run in found)]
        columns = [Column(name, [row[name] for row in rows], left=name in ("run", "outcome", "from")) for name in names]
        print_table(console, columns, styles=[STYLES.get(run.outcome, "red") for run in found], keep=3)
        notes = [one_line(f"{real_path(run.path).name}: {note}") for run in found if (note := _note(run))]
        if notes:
            print("\n".join(["", *notes]))
    else:
        print(f"no run in {path}; train one there with: tgc train --out {quoted(path / 'NAME')}", file=sys.stderr)
    if others:
        names = ", ".join(other.name for other in others[:3]) + (", ..." if others[3:] else "")
        print(f"in {path} there are also folders without a run: {names}", file=sys.stderr)


def _note(run: RunSummary) -> str:
    """Return what a run's row does not explain: why it failed, how to continue it, what was left out."""
    from tinygrad_chat.runs.folder import RunFolder

    go_on = RunFolder(run.path).resume_command
    note = {
        "failed": f"failed at {run.reason}" if run.reason.startswith("step ") else f"failed: {run.reason}",
        "damaged": f"damaged: {run.reason}",
        "killed": f"killed; resume with: {go_on}",
        "interrupted": f"interrupted; resume with: {go_on}",
        "imported": run.reason,
    }.get(run.outcome, "")
    left_out = f"left out: {run.left_out}" if run.left_out else ""
    return "; ".join(filter(None, (note, left_out)))


def _known(run: RunSummary) -> dict[str, object]:
    record = dataclasses.asdict(run)
    del record["path"]
    return record


def _cells(run: RunSummary) -> dict[str, str]:
    imported = run.outcome == "imported"  # what it was trained on, and for how long, is unknown

    def shown(value: float | None, written: Callable[[Any], str] = "{:,}".format) -> str:
        return UNKNOWN if value is None or (imported and not value) else written(value)

    steps = shown(run.step)
    if run.steps is not None and run.step != run.steps and not imported:
        steps += f" of {run.steps:,}"
    return {
        "run": real_path(run.path).name,
        "outcome": run.outcome,
        "val_loss": shown(run.best_val_loss, decimal_number),
        "steps": steps,
        "from": UNKNOWN if run.parent is None else _short(run.parent),
        "bits/byte": shown(run.val_bpb, decimal_number),
        "tokens/s": shown(run.tokens_per_second, "{:,.0f}".format),
        "time": UNKNOWN if run.seconds is None or imported else duration(run.seconds),
        "tokens": shown(run.tokens),
        "parameters": shown(run.parameters),
    }


def _short(checkpoint: str) -> str:
    """Return a checkpoint's run and its own name.

    >>> _short("runs/a/checkpoints/step-000250")
    'a/step-000250'
    """
    *_, run, _, step = ("", "", *Path(checkpoint).parts)
    return f"{run}/{step}" if run else step
