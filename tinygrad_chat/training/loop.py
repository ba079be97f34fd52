"""The training loop, for every model, engine and back end. It yields events and prints nothing."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any

from tinygrad_chat.errors import (
    DivergedError,
    MemoryGrowthError,
    MemoryShortageError,
    RankError,
    StorageError,
    UsageError,
)
from tinygrad_chat.formatting import as_clause
from tinygrad_chat.inference.answers import answers_as_text, first_questions
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.generation import sample_texts
from tinygrad_chat.inference.options import SamplingOptions
from tinygrad_chat.machine.environment import describe_environment
from tinygrad_chat.machine.memory import memory_held
from tinygrad_chat.models.protocol import LanguageModel, Predictor
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.checkpoint import (
    checkpoint_path,
    find_checkpoints,
    load_newest,
    make_temporary,
    remove_old_checkpoints,
    step_of,
)
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.text.mixture import Mixture
from tinygrad_chat.training.clock import CheckpointClock, Clock
from tinygrad_chat.training.evaluation import Evaluation, evaluate, mix_evaluations
from tinygrad_chat.training.events import Began, Ended, Evaluated, Event, Logged, StayedEager, Stepped
from tinygrad_chat.training.guards.diagnosis import explain_prediction, nonfinite_parameter
from tinygrad_chat.training.guards.memory import MemoryGuard
from tinygrad_chat.training.guards.rollback import with_rollbacks
from tinygrad_chat.training.products import recall_products, save_products
from tinygrad_chat.training.run import HANDED_OVER, Run
from tinygrad_chat.training.saving import forget_checkpoint, save, save_temporarily, write_checkpoint
from tinygrad_chat.training.update import update

SAMPLE_LENGTH = 200  # tokens of text generated at each evaluation
SAMPLE_QUESTIONS = 3  # answered instead if a run learns from conversations
EVALUATION_BATCH = 4096  # tokens


def train(run: Run, *, should_stop: Callable[[], bool] = lambda: False) -> Generator[Event, None, None]:
    """Train until the configured steps or minutes are used up, or `should_stop()` returns True between two steps.

    The checkpoint of a step is on disk before its evaluation starts. Between the regular checkpoints a temporary one
    is kept, at most a minute old unless saving is slow. Raises UsageError if another process is training in the run's
    folder, DivergedError if the loss is NaN or infinite, MemoryGrowthError, MemoryShortageError, RankError if another
    rank is lost, and StorageError if something cannot be written or the folder was moved; existing checkpoints are
    kept.
    """
    with run.folder.locked():
        _expect_unchanged(run)
        if run.parent and run.saved_step is None:
            run.folder.create(resumed=run.resumed)
            save(run, due=True)  # before anything else, so that resuming never needs the parent
        if run.stopped_early:  # an uninterrupted run would have had no checkpoint here to roll back to
            make_temporary(checkpoint_path(run.folder.checkpoints, run.progress.step))
        damaged = run.folder.begin(
            run.config,
            describe_environment(run.model.parameters().compute)
            | (HANDED_OVER if run.own_data else {})
            | ({"parent": dict(run.parent)} if run.parent else {})
            | ({"ranks": run.train_step.ranks} if run.train_step.ranks > 1 else {}),
            step=run.progress.step,
            marks=run.log,
            resumed=run.resumed or run.saved_step is not None,
        )
        if damaged and run.saved_step is not None:
            write_checkpoint(run, temporary=True)  # so that the next start expects the log as repaired
        recall_products(run)
        moved = False
        try:
            for event in with_rollbacks(run, lambda: _train(run, should_stop)):
                if isinstance(event, Ended):
                    trouble = _close(run, "interrupted" if event.interrupted else "finished")
                    event = dataclasses.replace(event, trouble=trouble)
                    moved = event.interrupted and run.folder.moved_from is not None
                    if moved:
                        break
                yield event
        except (DivergedError, MemoryGrowthError) as error:
            _close(run, "failed", str(error))
            raise
        except (StorageError, RankError) as error:
            _close(run, "failed", str(error))
            raise type(error)(f"{error}; then resume with: {run.folder.resume_command}") from error
        except Exception as error:
            if not run.model.parameters().backend.ran_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # the frames keep the step's intermediate arrays alive
            shortage = _explain_shortage(run, error)
            _close(run, "failed", str(shortage))
            raise shortage from error
        if moved:
            raise StorageError(
                f"{run.folder.moved_from}: was moved to {run.folder.path} while the run trained there; it has stopped "
                f"with a checkpoint, resume with: {run.folder.resume_command}"
            )


def _explain_shortage(run: Run, error: Exception) -> MemoryShortageError:
    """Return an error that says how much memory was requested, how much is free, and what to change."""
    backend = run.model.parameters().backend
    asked = as_clause(str(error)) or "not enough memory"
    steps = [step_of(path) for path in find_checkpoints(run.folder.checkpoints)]
    kept = f"; the checkpoint of step {steps[-1]} is on disk" if steps else ""
    return MemoryShortageError(
        f"step {run.progress.step}: {asked}, with {backend.memory_free() >> 20:,} MiB free on "
        f"{backend.device}; split the batch into more micro-batches with --grad-accumulation, or choose a smaller "
        f"--batch-size, --context or --width{kept}"
    )


def _expect_unchanged(run: Run) -> None:
    """Raise UsageError if another process has trained in the folder since this run read it."""
    steps = [step_of(path) for path in find_checkpoints(run.folder.checkpoints)]
    if not run.resumed or not steps or steps[-1] == run.saved_step:
        return
    # A later checkpoint may merely be a damaged one.
    newest = load_newest(run.folder.checkpoints, TrainingState.load, say=lambda line: None)
    if newest is not None and newest.step != run.saved_step:
        raise UsageError(f"{run.folder.path}: another process has just trained this run; resume it again")


def _close(run: Run, outcome: str, reason: str = "") -> str:
    """Record how training ended and write the report; return why that failed, as it must not make the run fail."""
    try:
        run.folder.write_outcome(outcome, step=run.progress.step, seconds=run.progress.seconds, reason=reason)
        write_report(run.folder)
    except StorageError as error:
        return str(error)
    return ""


def _train(run: Run, should_stop: Callable[[], bool]) -> Iterator[Event]:
    options, steps = run.config.run, run.config.schedule.steps
    clock, saving, guard = Clock(run), CheckpointClock(), MemoryGuard(run.config.guards.max_memory_growth)
    while True:
        run.folder.follow()
        step, interrupted = run.progress.step, should_stop() or run.folder.moved_from is not None
        last = step >= steps or clock.fraction_used() >= 1
        evaluation_due = last or run.config.evaluates_at(step) or step == run.evaluate_at
        checkpoint_due = evaluation_due or run.config.saves_at(step)
        if interrupted and not checkpoint_due and nonfinite_parameter(run.model.parameters()):
            interrupted = False  # let the next step report it, as it would have without the stop
        if checkpoint_due or interrupted:
            yield Began(step, "saving")
            with saving.saving():
                saved = save(run, due=checkpoint_due)
            yield saved
        elif saving.due():
            yield Began(step, "saving")
            with saving.saving():
                save_temporarily(run)
        if interrupted:
            break
        timing: dict[str, Any] = {"step": step, "seconds": run.progress.seconds}
        evaluated, measured = None, None
        if evaluation_due:
            yield Began(step, "evaluating")
            evaluated = _evaluate(run)
            timing |= memory_held(run.model.parameters().backend)
            yield evaluated
        if checkpoint_due:
            best = run.progress.best_step
            remove_old_checkpoints(run.folder.checkpoints, step=step, keep=options.keep_checkpoints, best_step=best)
        if not last:
            eager = run.train_step.why_eager
            with clock:
                measured = update(run, clock.fraction_used())
            if run.train_step.why_eager and not eager:
                yield StayedEager(step, run.train_step.why_eager)
            yield from save_products(run, step)
        if evaluated or step % options.log_every == 0 or (measured and "skipped_spike" in measured):
            if measured and run.reinforcement is None:  # with rewards, the lengths of answers vary
                timing["tokens_per_second"] = clock.tokens_per_second()
            yield _log(run, _record(step, evaluated, measured), timing)
        if evaluated:
            guard.check(timing)
        if measured is None:
            break
        done = max(run.progress.step / steps, min(1.0, clock.fraction_used()))
        yield Stepped(run.progress.step, measured["loss"], done)
    yield Ended(run.progress.step, interrupted)


def _record(step: int, evaluated: Evaluated | None, measured: dict[str, float] | None) -> dict[str, Any]:
    """Return a line of the log: the evaluation at `step`, then the loss of the batch drawn there and the update."""
    record: dict[str, Any] = {"step": step}
    if measured:
        record["loss"] = measured["loss"]
    if evaluated:
        if evaluated.reward is not None:
            record["val_reward"] = evaluated.reward
        record["val_loss"] = evaluated.evaluation.loss
        record["val_perplexity"] = evaluated.evaluation.perplexity
        record["val_bpb"] = evaluated.evaluation.bits_per_byte
        if evaluated.evaluation.sources:
            record["sources"] = {
                name: {"val_loss": each.loss, "val_bpb": each.bits_per_byte}
                for name, each in evaluated.evaluation.sources.items()
            }
    return record | (measured or {})


def _log(run: Run, record: dict[str, Any], timing: dict[str, Any]) -> Logged:
    run.folder.append(record, timing)
    return Logged(record, timing)


def _evaluate(run: Run) -> Evaluated:
    progress = run.progress

    bytes_per_token = run.tokenizer.bytes_per_token()
    batch_size = max(1, EVALUATION_BATCH // run.config.model.context)

    def evaluation_of(model: Predictor) -> Evaluation:
        found = [evaluate(model, tokens, bytes_per_token, batch_size=batch_size) for tokens in run.evaluation_tokens]
        if isinstance(run.dataset, Mixture):
            names = [part.source for part in run.dataset.parts]
            return mix_evaluations(dict(zip(names, found, strict=True)), run.dataset.shares)
        return found[0]

    def sample_of(model: LanguageModel) -> str:
        held_out = [(part.validation, part.chats and part.chats.validation_starts) for part in run.dataset.parts]
        questions = first_questions(held_out, run.tokenizer, SAMPLE_QUESTIONS)
        if questions:
            return answers_as_text(Engine(model, run.tokenizer, tool=run.calculator), questions)
        options = SamplingOptions(max_new_tokens=SAMPLE_LENGTH, seed=run.config.run.seed)
        return "".join(next(sample_texts(model, run.tokenizer, options)))

    evaluation = evaluation_of(run.predictor)
    loss = evaluation.loss
    if not math.isfinite(loss):
        raise _unfit(run, f"the validation loss is {loss:g}", evaluation_of)
    try:
        sample = sample_of(run.model)
    except DivergedError as error:
        raise _unfit(run, "the logits of the sample are NaN or infinite", sample_of) from error
    reward = None if run.reinforcement is None else run.reinforcement.score(run.train_step)
    compared = loss if reward is None else 1 - reward
    if progress.best_loss is None or compared < progress.best_loss:
        progress.best_step, progress.best_loss = progress.step, compared
    run.folder.write_sample(progress.step, sample)
    return Evaluated(progress.step, evaluation, sample, reward)


def _unfit(run: Run, finding: str, predict: Callable[[LanguageModel], object]) -> DivergedError:
    """Remove this step's checkpoint, whose model cannot `predict`; return an error saying what went wrong and where."""
    forget_checkpoint(run)
    where = explain_prediction(run, predict)
    return DivergedError(f"step {run.progress.step}: {finding}, {where}", "lower --lr in a new run")
