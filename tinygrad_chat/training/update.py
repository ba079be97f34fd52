"""One update of a run: its next batch, the training step, the guards and the log record."""

from __future__ import annotations

import math

import numpy as np

from tinygrad_chat.config.groups import OWN
from tinygrad_chat.errors import DivergedError
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import expect_known
from tinygrad_chat.training.batches import Drawn
from tinygrad_chat.training.guards.diagnosis import explain_gradient
from tinygrad_chat.training.run import Run
from tinygrad_chat.training.step import StepResult


def update(run: Run, fraction_used: float) -> dict[str, float]:
    """Update the weights once; return the log record. `fraction_used` is the fraction of the run's minutes used up.

    Raises DivergedError if the loss or the gradient is NaN or infinite; the weights are then unchanged.
    """
    progress, recent, limit = run.progress, run.progress.recent_losses, run.config.guards.skip_spikes
    drawn = draw_of(run)

    def skip(loss: float) -> bool:
        return not drawn.has_signal or (limit is not None and recent.z_score(loss) > limit)

    with np.errstate(all="ignore"):  # an overflow shows as a loss or a norm that is not finite
        result = run.train_step(
            drawn.batch,
            _position(run, fraction_used),
            random=_dropout(run),
            skip=None if limit is None and drawn.has_signal else skip,
        )
    _draw_ahead(run)
    loss, grad_norm = float(result.loss), float(result.grad_norm)  # the host waits for the device only here
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise _diverged(run, result, drawn)
    record = {"loss": loss, **drawn.told, "lr": result.lr, "grad_norm": grad_norm}
    if result.skipped and drawn.has_signal:
        record["skipped_spike"] = recent.z_score(loss)
    recent.add(loss)
    progress.step += 1
    return record


def draw_of(run: Run) -> Drawn:
    """Return what the run's next step trains on. Raises DataError as `expect_known` does."""
    drawn = run.draw(_number(run))
    expect_known(drawn.batch, run.train_step.model.vocabulary)
    return drawn


def _draw_ahead(run: Run) -> None:
    """Draw the next step's batch while a device still computes; a CPU has nothing to wait for."""
    if run.reinforcement is None and run.model.parameters().backend.name != "numpy":
        run.batch.draw_ahead(_number(run) + 1)


def _number(run: Run) -> int:
    """Return the number of the run's next batch."""
    return run.progress.step + run.progress.skipped_batches


def _dropout(run: Run) -> np.random.Generator | None:
    """Return the random numbers for the next step's dropout, None without dropout."""
    drops = run.config.model.dropout or run.config.recipe.model == OWN  # a custom model may have dropout of its own
    return rng(run.config.run.seed, "dropout", _number(run)) if drops else None


def _position(run: Run, fraction_used: float) -> int:
    """Return the run's position in its schedules. Under a time limit, after warmup, it follows the time used where
    that is ahead of the steps."""
    step, schedule = run.progress.step, run.config.schedule
    return step if step < schedule.warmup else max(step, int(fraction_used * schedule.steps))


def _diverged(run: Run, result: StepResult, drawn: Drawn) -> DivergedError:
    """Compute the gradient again to find where it went wrong; return an error that says so."""

    with np.errstate(all="ignore"):
        where = explain_gradient(
            run, lambda model: run.train_step.gradient(drawn.batch, random=_dropout(run), model=model)
        )
    cause = f"the loss is {float(result.loss):g} and the norm of the gradient {float(result.grad_norm):g}"
    return DivergedError(
        f"step {run.progress.step}: {cause}, {where}",
        f"lower --lr ({run.config.optimizer.lr:g}) or raise --warmup ({run.config.schedule.warmup}) in a new run",
    )
