"""The training loop: one for every model, engine and back end. It yields what happens and prints nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.errors import DivergedError
from tinygrad_chat.optim import clip_gradient
from tinygrad_chat.sampling.generation import sample_texts
from tinygrad_chat.sampling.options import SamplingOptions
from tinygrad_chat.seeds import stream
from tinygrad_chat.text.batches import random_batch
from tinygrad_chat.training.checkpoint import checkpoint_path, remove_old_checkpoints, save_checkpoint
from tinygrad_chat.training.evaluation import Evaluation, evaluate
from tinygrad_chat.training.run import Run

SAMPLE_LENGTH = 200  # tokens of the text written at each evaluation
EVALUATION_BATCH = 4096  # tokens at a time


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
    """A line of the log: the state after record["step"] updates, and the loss of the batch drawn next."""

    record: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """The run is over, or was stopped before its end; either way a checkpoint of this step is on disk."""

    step: int
    interrupted: bool


Event = Saved | Evaluated | Stepped | Logged | Ended


def train(run: Run, *, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train until the configured steps or minutes are over, or `should_stop()` says so between two steps.

    The checkpoint of a step is on disk before its evaluation starts. Raises DivergedError where the loss is no longer
    a number, StorageError where something cannot be written; the checkpoints so far stay.
    """
    config, clock = run.config, _Clock(run)
    while True:
        step, interrupted = run.step, should_stop()
        last = step >= config.steps or clock.share_used() >= 1
        evaluation_due = last or step % config.eval_every == 0 or step == run.evaluate_at
        checkpoint_due = config.checkpoint_every is not None and step % config.checkpoint_every == 0
        if evaluation_due or checkpoint_due or interrupted:
            yield _save(run)
        if interrupted:
            break
        evaluated, measured = None, None
        if evaluation_due:
            evaluated = _evaluate(run)
            yield evaluated
        remove_old_checkpoints(run.folder.checkpoints, best_step=run.best_step)
        if not last:
            with clock, np.errstate(all="ignore"):  # what overflows is found as a loss or a weight that is no number
                measured = _step(run, clock.share_used())
        if evaluated or step % config.log_every == 0:
            record = _record(step, evaluated, measured, clock)
            run.folder.append_to_log(record)
            yield Logged(record)
        if measured is None:
            break
        yield Stepped(run.step, measured["loss"], max(run.step / config.steps, min(1.0, clock.share_used())))
    yield Ended(run.step, interrupted)


def _record(
    step: int, evaluated: Evaluated | None, measured: Mapping[str, float] | None, clock: _Clock
) -> dict[str, Any]:
    """Return a line of the log: the loss of the batch drawn at `step`, the evaluation before it, how it was taken."""
    record: dict[str, Any] = {"step": step}
    if measured:
        record["loss"] = measured["loss"]
    if evaluated:
        record["val_loss"] = evaluated.evaluation.loss
        record["val_perplexity"] = evaluated.evaluation.perplexity
        record["val_bpb"] = evaluated.evaluation.bits_per_byte
    if measured:
        record |= measured
        record["tokens_per_second"] = clock.tokens_per_second()
    return record


def _step(run: Run, share_used: float) -> dict[str, float]:
    """Update the weights once; return what the log says of it."""
    config, model, step = run.config, run.model, run.step
    tokens, targets = random_batch(
        run.dataset.training,
        batch_size=config.batch_size,
        context=config.context,
        random=stream(config.seed, "batches", step),
    )
    parameters = model.parameters()
    parameters.zero_gradient()
    loss = model.loss(tokens, targets, random=stream(config.seed, "dropout", step) if config.dropout else None)
    loss.backward()
    norm = clip_gradient(parameters, config.clip or None)
    value = loss.item()
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise DivergedError(
            f"step {step}: the loss is {value} and the gradient's norm {norm}; "
            f"lower --lr ({config.lr:g}) or raise --warmup ({config.warmup}), and start a new run"
        )
    # With a time limit, the way down follows the time used where that runs ahead of the steps; the way up does not.
    lr = run.schedule(step if step < config.warmup else max(step, int(share_used * config.steps)))
    run.optimizer.step(lr)
    run.step += 1
    return {"loss": value, "lr": lr, "grad_norm": norm}


def _save(run: Run) -> Saved:
    path = checkpoint_path(run.folder.checkpoints, run.step)
    if not run.model.parameters().finite():
        raise DivergedError(f"step {run.step}: weights are no longer numbers; lower --lr, and start a new run")
    if not path.exists():  # a resumed run begins at one
        save_checkpoint(run.folder.checkpoints, run.checkpoint())
    return Saved(run.step, path)


def _evaluate(run: Run) -> Evaluated:
    evaluation = evaluate(
        run.model,
        run.dataset.validation[: run.config.eval_tokens],
        run.tokenizer.bytes_per_token(),
        batch_size=max(1, EVALUATION_BATCH // run.config.context),
    )
    if run.best_loss is None or evaluation.loss < run.best_loss:
        run.best_step, run.best_loss = run.step, evaluation.loss
    options = SamplingOptions(max_new_tokens=SAMPLE_LENGTH, seed=run.config.seed)
    sample = "".join(next(sample_texts(run.model, run.tokenizer, options)))
    run.folder.write_sample(run.step, sample)
    return Evaluated(run.step, evaluation, sample)


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
