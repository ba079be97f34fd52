"""Resolve a run or checkpoint: by its path, by its name below runs/, or as the newest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tinygrad_chat.errors import CheckpointError, StorageError
from tinygrad_chat.files import explained, is_folder, is_there, list_folder
from tinygrad_chat.runs.checkpoint import Load, Loaded, find_checkpoints
from tinygrad_chat.runs.finding import RUNS
from tinygrad_chat.runs.folder import RunFolder


def open_checkpoint(path: Path | None, load: Load[Loaded], *, say: Callable[[str], None]) -> Loaded:
    """Load with `load` the checkpoint that `path` means: the one there, the newest complete one of the run there or of
    that name below runs/, or with None that of the newest run.

    `say` reports damaged ones that were skipped. Raises CheckpointError if there is none.
    """
    if path is None:
        return newest_run().open_newest(load, say=say)
    with explained(path, "read"):
        if not is_there(path, follow=True) and is_there(RUNS / path, follow=True):
            path = RUNS / path
        is_checkpoint = is_there(path / "state.json")
    if is_checkpoint:
        return load(path)
    return RunFolder(path.parent if path.name == "checkpoints" else path).open_newest(load, say=say)


def newest_run(*, begun: bool = False) -> RunFolder:
    """Return the run below `runs/` with the newest checkpoint; if `begun`, runs without a checkpoint count, too.

    Raises CheckpointError if there is none, StorageError if that run cannot be read.
    """
    runs = newest_runs(begun=begun)
    if not runs:
        raise CheckpointError(f"no checkpoint below {RUNS}/; train a model first with: tgc train")
    find_checkpoints(runs[0].checkpoints)
    return runs[0]


def newest_runs(*, begun: bool = False) -> list[RunFolder]:
    """Return the runs below `runs/`, newest first: those with a checkpoint and, if `begun`, those without one yet.

    Raises StorageError if the folder cannot be read.
    """
    with explained(RUNS, "read"):
        runs = [RunFolder(path) for path in list_folder(RUNS, follow=True) if is_folder(path, follow=True)]
        dated = [(date, run) for run in runs if (date := _last_saved(run, begun=begun)) is not None]
    return [run for _, run in sorted(dated, key=lambda entry: entry[0], reverse=True)]


def _last_saved(run: RunFolder, *, begun: bool) -> float | None:
    """Return when the newest checkpoint of a run was saved, or if `begun` its configuration; else None.

    A run that cannot be read may be the newest: it counts as old as its folder.
    """
    try:
        checkpoints = find_checkpoints(run.checkpoints)
        if checkpoints:
            return checkpoints[-1].stat().st_mtime
        return run.config.stat().st_mtime if begun and is_there(run.config) else None
    except (StorageError, OSError):
        return run.path.stat().st_mtime
