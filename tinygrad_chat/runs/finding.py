"""Where runs are, and what a path that leads to none may have meant."""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path

from tinygrad_chat.files import is_folder, is_run, is_there, list_folder
from tinygrad_chat.formatting import quoted

RUNS = Path("runs")


def runs_in(folder: Path) -> list[Path]:
    """Return the runs in a folder, the most recently written last; what cannot be read is left out.

    Raises OSError if the folder cannot be read.
    """
    return sorted((path for path in list_folder(folder, follow=True) if _is_surely_run(path)), key=last_written)


def last_written(run: Path) -> float:
    """Return when a run's log was last modified, or its folder if the log's time cannot be read."""
    with contextlib.suppress(OSError):
        return (run / "log.jsonl").lstat().st_mtime
    return run.lstat().st_mtime


def _is_surely_run(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return is_run(path)
    return False


def _is_of_another_program(path: Path) -> bool:
    if is_folder(path, follow=True):
        return is_there(path / "config.json", follow=True) and not is_there(path / "config.toml")
    return path.suffix == ".gguf"


def explain_missing(path: Path) -> str:
    """Say what is at `path` instead of a run or a checkpoint, and what may have been meant, to follow a colon.

    Empty if nothing is known about it.
    """
    try:
        return _explain_missing(path)
    except OSError:  # from something nearby, which does not matter here
        return ""


def _explain_missing(path: Path) -> str:
    models = [parent for parent in path.parents if _is_surely_run(parent) or is_there(parent / "state.json")]
    around = models[0] if models else None
    there = is_there(path, follow=True)
    if there and _is_of_another_program(path):
        return f"is another program's model; convert it to a run with: tgc import {quoted(path)}"
    if there and not is_folder(path, follow=True):
        such = f", such as {quoted(around)}" if around else ""
        return f"is a file; expected the folder of a run or of a checkpoint{such}"
    inside = runs_in(path)
    if inside:
        return f"is a folder of runs; expected one of them, such as {quoted(inside[-1])}"
    if there and around:
        return f"is part of {quoted(around)}; give that path instead"
    names = {run.name: run for run in runs_in(RUNS)}
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"no run there; did you mean {quoted(names[close[0]])}?" if close and not there else ""
