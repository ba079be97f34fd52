"""Checkpoints of a run: the regular ones, and temporary ones, which limit what a kill can lose."""

from __future__ import annotations

import contextlib

from tinygrad_chat.errors import DivergedError, StorageError
from tinygrad_chat.files import is_folder, remove_folder_atomic
from tinygrad_chat.runs.checkpoint import (
    checkpoint_path,
    find_checkpoints,
    remove_later_checkpoints,
    remove_temporary_checkpoints,
)
from tinygrad_chat.runs.log import Marks
from tinygrad_chat.training.events import Saved
from tinygrad_chat.training.guards.diagnosis import nonfinite_parameter
from tinygrad_chat.training.run import Run


def save(run: Run, *, due: bool) -> Saved:
    """Write the checkpoint of this step, unless it is on disk. A checkpoint that is `due`, rather than caused by a
    stop, clears the rollbacks once training is past all of them. Raises DivergedError if a weight is NaN or infinite.
    """
    unfit = nonfinite_parameter(run.model.parameters())
    if unfit:
        finding = f"step {run.progress.step}: the last update left NaN or infinity in {unfit}"
        raise DivergedError(finding, "lower --lr in a new run")
    if due and all(run.progress.step > rollback.failed_step for rollback in run.progress.rollbacks):
        run.progress.rollbacks = ()
    run.folder.follow()
    path = checkpoint_path(run.folder.checkpoints, run.progress.step)
    if run.progress.step != run.saved_step or not is_folder(path):
        write_checkpoint(run)
    return Saved(run.progress.step, path)


def save_temporarily(run: Run) -> None:
    """Write a temporary checkpoint without affecting the run: weights that are not finite are left for the next step
    to report, and a full disk for the next regular checkpoint."""
    if nonfinite_parameter(run.model.parameters()) is None:
        with contextlib.suppress(StorageError):
            write_checkpoint(run, temporary=True)


def write_checkpoint(run: Run, *, temporary: bool = False, marks: Marks | None = None) -> None:
    """Write a checkpoint of the run as it is, and of its log as it is or as `marks` say it will be."""
    run.folder.lines.fsync()
    state = run.state(marks)
    path = state.save(run.folder.checkpoints, temporary=temporary)
    run.saved_step, run.log = state.step, state.log
    remove_temporary_checkpoints(run.folder.checkpoints, but=path)


def forget_checkpoint(run: Run) -> None:
    """Remove this step's checkpoint, whose model gives no finite loss, if there is an earlier one."""
    remove_later_checkpoints(run.folder.checkpoints, step=run.progress.step)
    found = find_checkpoints(run.folder.checkpoints)
    if len(found) > 1:
        remove_folder_atomic(found[-1])
