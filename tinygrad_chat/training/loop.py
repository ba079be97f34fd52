"""The training loop: one for every model, engine and back end. It yields what happens and prints nothing."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import DivergedError, MemoryGrowthError, MemoryShortageError, StorageError, UsageError
from tinygrad_chat.formatting import count, quoted
from tinygrad_chat.inference.generation import sample_texts
from tinygrad_chat.inference.options import SamplingOptions
from tinygrad_chat.machine.environment import describe_environment
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.checkpoint import (
    checkpoint_path,
    find_checkpoints,
    load_newest,
    remove_later_checkpoints,
    remove_old_checkpoints,
    save_checkpoint,
    step_of,
)
from tinygrad_chat.runs.files import remove_folder_atomic
from tinygrad_chat.training.evaluation import Evaluation, evaluate
from tinygrad_chat.training.guards.diagnosis import explain_divergence, unfit_parameter
from tinygrad_chat.training.guards.memory import MemoryGuard, memory_held
from tinygrad_chat.training.run import Run
from tinygrad_chat.training.step import update

SAMPLE_LENGTH = 200  # tokens of the text written at each evaluation
EVALUATION_BATCH = 4096  # tokens at a time
MOST_ROLLBACKS = 3  # without getting past where they went back to


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on disk, whole."""

    step: int
    path: Path


@dataclass(frozen=True)
class Evaluated:
    """The model after `step` updates: how good it is, and a text by it."""

    step: int
    evaluation: Evaluation
    sample: str


@dataclass(frozen=True)
class Stepped:
    """`step` updates are done, `share` of the run's steps or minutes."""

    step: int
    loss: float
    share: float


@dataclass(frozen=True)
class Logged:
    """A line of the log: the state after record["step"] updates, and the loss of the batch drawn next.

    `timing` stands beside it: the seconds that training had taken until then, and what else no seed decides.
    """

    record: dict[str, Any]
    timing: dict[str, Any]


@dataclass(frozen=True)
class RolledBack:
    """The loss stopped being a number at `failed_step`; training goes on from `step` with other batches."""

    step: int
    failed_step: int
    reason: str


@dataclass(frozen=True)
class Ended:
    """The run is over, or was stopped before its end; either way a checkpoint of this step is on disk.

    `trouble` says why the report could not be written, where it could not.
    """

    step: int
    interrupted: bool
    trouble: str = ""


Event = Saved | Evaluated | Stepped | Logged | RolledBack | Ended


def train(run: Run, *, should_stop: Callable[[], bool] = lambda: False) -> Generator[Event, None, None]:
    """Train until the configured steps or minutes are over, or `should_stop()` says so between two steps.

    The checkpoint of a step is on disk before its evaluation starts. Raises UsageError where another process trains
    in the run's folder, DivergedError where the loss is no longer a number, MemoryGrowthError, MemoryShortageError, and
    StorageError where something cannot be written; the checkpoints so far stay.
    """
    with run.folder.locked():
        _expect_unchanged(run)
        run.folder.begin(
            run.config, describe_environment(run.model.parameters().compute), step=run.step, resumed=run.resumed
        )
        try:
            for event in _train_past_failures(run, should_stop):
                if isinstance(event, Ended):
                    trouble = _close(run, "interrupted" if event.interrupted else "finished")
                    event = dataclasses.replace(event, trouble=trouble)
                yield event
        except (DivergedError, MemoryGrowthError) as error:
            _close(run, "failed", str(error))
            raise
        except MemoryError as error:
            shortage = _explain_shortage(run, error)
            _close(run, "failed", str(shortage))
            raise shortage from error
        except StorageError as error:
            _close(run, "failed", str(error))
            raise StorageError(
                f"{error}; then go on with: tgc train --resume --out {quoted(run.folder.path)}"
            ) from error


def _explain_shortage(run: Run, error: MemoryError) -> MemoryShortageError:
    """Say what was asked for, what is free, and what helps."""
    backend = run.model.parameters().backend
    asked = " ".join(str(error).split()).rstrip(".") or "not enough memory"
    steps = [step_of(path) for path in find_checkpoints(run.folder.checkpoints)]
    kept = f"; the checkpoint of step {steps[-1]} is on disk" if steps else ""
    return MemoryShortageError(
        f"step {run.step}: {asked[:1].lower()}{asked[1:]}, with {backend.memory_free() >> 20:,} MiB free on "
        f"{backend.device}; compute the batch in more parts with --accumulate, or choose a smaller --batch-size, "
        f"--context or --width{kept}"
    )


def _expect_unchanged(run: Run) -> None:
    """Raise UsageError where another process has trained in the folder between this run's reading it and now."""
    steps = [step_of(path) for path in find_checkpoints(run.folder.checkpoints)]
    if not run.resumed or not steps or steps[-1] == run.saved_step:
        return
    newest = load_newest(run.folder.checkpoints, say=lambda line: None)  # a later one may be damaged
    if newest is not None and newest.step != run.saved_step:
        raise UsageError(f"{run.folder.path}: another process has just trained there; resume it once more")


def _close(run: Run, outcome: str, reason: str = "") -> str:
    """Write down how training ended, and the report; return why that was not possible: no reason for it to fail."""
    try:
        run.folder.write_outcome(outcome, step=run.step, seconds=run.seconds, reason=reason)
        write_report(run.folder)
    except StorageError as error:
        return str(error)
    return ""


def _train_past_failures(run: Run, should_stop: Callable[[], bool]) -> Iterator[Event]:
    """Train; with --on-nan rollback, go on from an earlier checkpoint where the loss stops being a number."""
    rollbacks: list[RolledBack] = []  # since training last came past a step that failed
    while True:
        try:
            for event in _train(run, should_stop):
                if isinstance(event, Saved) and all(event.step > rollback.failed_step for rollback in rollbacks):
                    rollbacks.clear()
                yield event
            return
        except DivergedError as error:
            rolled_back = None
            if run.config.on_nan == "rollback" and len(rollbacks) < MOST_ROLLBACKS:
                # Its own checkpoint is the last good one, unless it failed from there already.
                tried = any(rollback.step == run.step for rollback in rollbacks)
                rolled_back = _roll_back(run, error.finding, before=run.step if tried else run.step + 1)
            if rolled_back is None and rollbacks:
                tries = f"after {count(len(rollbacks), 'rollback')} that did not get past it"
                raise DivergedError(f"{error.finding}, {tries}", error.advice) from error
            if rolled_back is None:
                raise
        rollbacks.append(rolled_back)
        yield rolled_back


def _train(run: Run, should_stop: Callable[[], bool]) -> Iterator[Event]:
    config, clock, guard = run.config, _Clock(run), MemoryGuard(run.config.max_memory_growth)
    while True:
        step, interrupted = run.step, should_stop()
        last = step >= config.steps or clock.share_used() >= 1
        evaluation_due = last or step % config.eval_every == 0 or step == run.evaluate_at
        checkpoint_due = config.checkpoint_every is not None and step % config.checkpoint_every == 0
        if evaluation_due or checkpoint_due or interrupted:
            yield _save(run)
        if interrupted:
            break
        timing: dict[str, Any] = {"step": step, "seconds": run.seconds}
        evaluated, measured = None, None
        if evaluation_due:
            evaluated = _evaluate(run)
            timing |= memory_held(run.model.parameters().backend)
            yield evaluated
        if evaluation_due or checkpoint_due:
            remove_old_checkpoints(run.folder.checkpoints, step=step, keep=config.keep, best_step=run.best_step)
        if not last:
            with clock:
                measured = update(run, clock.share_used())
        if evaluated or step % config.log_every == 0 or (measured and "skipped_spike" in measured):
            if measured:
                timing["tokens_per_second"] = clock.tokens_per_second()
            yield _log(run, _record(step, evaluated, measured), timing)
        if evaluated:
            guard.check(timing)
        if measured is None:
            break
        yield Stepped(run.step, measured["loss"], max(run.step / config.steps, min(1.0, clock.share_used())))
    yield Ended(run.step, interrupted)


def _record(step: int, evaluated: Evaluated | None, measured: dict[str, float] | None) -> dict[str, Any]:
    """Return a line of the log: the loss of the batch drawn at `step`, the evaluation before it, how it was taken."""
    record: dict[str, Any] = {"step": step}
    if measured:
        record["loss"] = measured["loss"]
    if evaluated:
        record["val_loss"] = evaluated.evaluation.loss
        record["val_perplexity"] = evaluated.evaluation.perplexity
        record["val_bpb"] = evaluated.evaluation.bits_per_byte
    return record | (measured or {})


def _log(run: Run, record: dict[str, Any], timing: dict[str, Any]) -> Logged:
    run.folder.append(record, timing)
    return Logged(record, timing)


def _save(run: Run) -> Saved:
    path = checkpoint_path(run.folder.checkpoints, run.step)
    unfit = unfit_parameter(run.model.parameters())
    if unfit:
        finding = f"step {run.step}: the last update has left {unfit} without numbers"
        raise DivergedError(finding, "lower --lr in a new run")
    if run.step != run.saved_step:
        run.folder.fsync_log()
        save_checkpoint(run.folder.checkpoints, run.checkpoint())
        run.saved_step = run.step
    return Saved(run.step, path)


def _roll_back(run: Run, reason: str, *, before: int) -> RolledBack | None:
    """Go back to the newest whole checkpoint of a step `before` that, and past the batch that led here; None without
    one."""
    failed_step, failed_batch = run.step, run.step + run.skipped_batches
    saved = load_newest(run.folder.checkpoints, before=before, say=lambda line: None)
    if saved is None:
        return None
    run.restore(saved)
    run.skipped_batches = failed_batch + 1 - run.step
    remove_later_checkpoints(run.folder.checkpoints, step=run.step)
    run.folder.cut_log(run.step, rollbacks=True)
    record = {"step": run.step, "rolled_back_from": failed_step, "reason": reason}
    run.folder.append(record, {"step": run.step, "rolled_back_from": failed_step, "seconds": run.seconds})
    return RolledBack(run.step, failed_step, reason)


def _evaluate(run: Run) -> Evaluated:
    def evaluation_of(model: LanguageModel) -> Evaluation:
        return evaluate(
            model,
            run.dataset.validation[: run.config.eval_tokens],
            run.tokenizer.bytes_per_token(),
            batch_size=max(1, EVALUATION_BATCH // run.config.context),
        )

    try:
        evaluation = evaluation_of(run.model)
        loss = evaluation.loss
    except DivergedError:
        evaluation, loss = None, math.nan
    if evaluation is None or not math.isfinite(loss):
        _forget_checkpoint(run)
        where = explain_divergence(run, evaluation_of)
        raise DivergedError(f"step {run.step}: the validation loss is {loss:g}, {where}", "lower --lr in a new run")
    if run.best_loss is None or loss < run.best_loss:
        run.best_step, run.best_loss = run.step, loss
    options = SamplingOptions(max_new_tokens=SAMPLE_LENGTH, seed=run.config.seed)
    sample = "".join(next(sample_texts(run.model, run.tokenizer, options)))
    run.folder.write_sample(run.step, sample)
    return Evaluated(run.step, evaluation, sample)


def _forget_checkpoint(run: Run) -> None:
    """Remove this step's checkpoint, whose model gives no numbers, where there is an earlier one."""
    remove_later_checkpoints(run.folder.checkpoints, step=run.step)
    found = find_checkpoints(run.folder.checkpoints)
    if len(found) > 1:
        remove_folder_atomic(found[-1])


class _Clock:
    """Counts the seconds spent in training steps, in the run as a whole and since the last line of the log."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._steps = 0
        self._seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        passed = time.perf_counter() - self._began
        self._steps += 1
        self._seconds += passed
        self._run.seconds += passed

    def share_used(self) -> float:
        """The share of the configured minutes that is over; 0 where there is no limit."""
        minutes = self._run.config.minutes
        return 0.0 if minutes is None else self._run.seconds / (60 * minutes)

    def tokens_per_second(self) -> float:
        """Training tokens per second since the last call."""
        config = self._run.config
        speed = self._steps * config.batch_size * config.context / self._seconds
        self._steps, self._seconds = 0, 0.0
        return speed
