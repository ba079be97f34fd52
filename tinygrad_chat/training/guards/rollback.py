"""`--on-nan rollback`: continue from an earlier checkpoint, with other batches, when the loss is NaN or infinite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tinygrad_chat.errors import CheckpointError, DivergedError, StorageError
from tinygrad_chat.formatting import count, one_line
from tinygrad_chat.runs.checkpoint import load_newest, remove_later_checkpoints
from tinygrad_chat.runs.state import Rollback, TrainingState
from tinygrad_chat.training.events import Event, RolledBack
from tinygrad_chat.training.run import Run
from tinygrad_chat.training.saving import write_checkpoint

MAX_ROLLBACKS = 3  # without getting past the step that failed


def with_rollbacks(run: Run, events: Callable[[], Iterator[Event]]) -> Iterator[Event]:
    """Yield what training yields; if it diverges and the run is to be rolled back, roll back and start it again."""
    while True:
        try:
            yield from events()
            return
        except DivergedError as error:
            rollbacks, rolled_back = run.progress.rollbacks, None
            if run.config.guards.on_nan == "rollback" and len(rollbacks) < MAX_ROLLBACKS:
                # This step's own checkpoint is the last good one, unless a rollback to it has already failed.
                tried = any(rollback.step == run.progress.step for rollback in rollbacks)
                before = run.progress.step if tried else run.progress.step + 1
                rolled_back = _roll_back(run, error.finding, before=before)
            if rolled_back is None and rollbacks:
                tries = f"after {count(len(rollbacks), 'rollback')} that did not get past it"
                raise DivergedError(f"{error.finding}, {tries}", error.advice) from error
            if rolled_back is None:
                raise
        yield rolled_back


def _roll_back(run: Run, reason: str, *, before: int) -> RolledBack | None:
    """Go back to the newest complete checkpoint from before step `before`, and skip the batches up to the one that
    failed; return None if there is none. Temporary checkpoints do not count: which step a run goes back to must not
    depend on how long its steps took.

    A temporary checkpoint records the rollback before anything is removed, so that a resumed run continues either from
    before the rollback or from after it.
    """
    failed, rollbacks, checkpoints = run.progress.step, run.progress.rollbacks, run.folder.checkpoints
    failed_batch = failed + run.progress.skipped_batches
    saved = load_newest(checkpoints, _load, before=before, temporary=False, say=lambda line: None)
    if saved is None:
        return None
    run.restore(saved)
    step = run.progress.step
    run.progress.skipped_batches = failed_batch + 1 - step
    run.progress.rollbacks = (*rollbacks, Rollback(step, failed))
    record = {"step": step, "rolled_back_from": failed}
    marks = run.folder.lines.marks_of_rollback(
        saved.log, step, {**record, "reason": one_line(reason)}, {**record, "seconds": run.progress.seconds}
    )
    write_checkpoint(run, temporary=True, marks=marks)
    remove_later_checkpoints(checkpoints, step=step)
    run.folder.lines.go_on(marks, step)
    return RolledBack(step, failed, reason)


def _load(path: Path) -> TrainingState:
    """Load a checkpoint. Raises StorageError for one that exists but cannot be read now, as it need not be damaged;
    the rollback is then repeated when the run is resumed."""
    try:
        return TrainingState.load(path)
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise StorageError(str(error)) from error
        raise
