"""Where runs are, and what a path that leads to none may have meant."""

from __future__ import annotations

import difflib
from pathlib import Path

from tinygrad_chat.formatting import quoted

RUNS = Path("runs")


def is_run(path: Path) -> bool:
    """Return whether a folder holds anything of a run."""
    return any((path / name).exists() for name in ("config.toml", "log.jsonl", "checkpoints"))


def runs_in(folder: Path) -> list[Path]:
    """Return the runs that stand in a folder, the one that wrote last at the end."""
    found = [path for path in folder.glob("*") if _is_surely_run(path)]
    return sorted(found, key=lambda run: (run / "log.jsonl").stat().st_mtime)


def explain_missing(path: Path) -> str:
    """Return what is at `path` instead of a run or a checkpoint, and what may have been meant, as what follows a colon.

    Empty where nothing is known of it.
    """
    models = [parent for parent in path.parents if _is_surely_run(parent) or (parent / "state.json").exists()]
    around = models[0] if models else None
    if path.is_file():
        such = f", such as {quoted(around)}" if around else ""
        return f"is a file; expected the folder of a run or of a checkpoint{such}"
    inside = runs_in(path)
    if inside:
        return f"is a folder of runs; expected one of them, such as {quoted(inside[-1])}"
    if path.is_dir() and around:
        return f"is a part of {quoted(around)}; name that"
    names = {run.name: run for run in runs_in(RUNS)}
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"no run there; did you mean {quoted(names[close[0]])}?" if close and not path.exists() else ""


def _is_surely_run(folder: Path) -> bool:
    return (folder / "config.toml").exists() and (folder / "log.jsonl").exists()
