"""One update of the weights: a batch's gradient, whole or in parts, what guards it, and the optimiser's step."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from tinygrad_chat.errors import DivergedError
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.ops.cross_entropy import count_targets
from tinygrad_chat.optim import clip_gradient
from tinygrad_chat.parallel import DataParallel
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import Batch, random_batch
from tinygrad_chat.training.guards.diagnosis import explain_divergence
from tinygrad_chat.training.run import Run


def update(run: Run, share_used: float) -> dict[str, float]:
    """Update the weights once; return what the log says of it. `share_used` is that of the run's minutes.

    Raises DivergedError where the loss or the gradient is no number; then the weights are as before.
    """
    config, model, step = run.config, run.model, run.step
    position = step + run.skipped_batches
    batch = random_batch(
        run.dataset.training,
        batch_size=config.batch_size,
        context=config.context,
        random=rng(config.seed, "batches", position),
    )

    def gradient(model: LanguageModel, shards: DataParallel | None = None) -> Any:
        return accumulate_gradient(
            model,
            batch,
            parts=config.accumulate,
            random=rng(config.seed, "dropout", position) if config.dropout else None,
            shards=shards,
        )

    with np.errstate(all="ignore"):  # what overflows is found as a loss or a gradient that is no number
        try:
            loss, cause = gradient(model, run.shards), ""
        except DivergedError as error:  # Python's floats raise where NumPy's become infinite
            loss, cause = math.nan, str(error)
        norm = math.nan if cause else clip_gradient(model.parameters(), config.clip or None)
        # With a time limit, the way down follows the time used where that runs ahead of the steps; the way up does not.
        place = step if step < config.warmup else max(step, int(share_used * config.steps))
        lr = run.schedule(place)
        spike = config.skip_spikes is not None and run.recent_losses.z_score(float(loss)) > config.skip_spikes
        if not spike:
            # 0 times a loss that is no number is none either: then none moves.
            run.optimizer.step(lr, norm + 0 * loss, place)
        loss, norm = float(loss), float(norm)  # only here does the host wait for a device
        if not (math.isfinite(loss) and math.isfinite(norm)):
            where = explain_divergence(run, gradient)
            raise DivergedError(
                f"step {step}: {cause or f'the loss is {loss:g} and the norm of the gradient {norm:g}'}, {where}",
                f"lower --lr ({config.lr:g}) or raise --warmup ({config.warmup}) in a new run",
            )
    record = {"loss": loss, "lr": lr, "grad_norm": norm}
    if spike:
        record["skipped_spike"] = run.recent_losses.z_score(loss)
    run.recent_losses.add(loss)
    run.step += 1
    return record


def accumulate_gradient(
    model: LanguageModel,
    batch: Batch,
    *,
    parts: int,
    random: np.random.Generator | None = None,
    shards: DataParallel | None = None,
) -> Any:
    """Leave the gradient of a batch's mean loss in the model's buffer; return that loss: on a device an array, which
    nobody has waited for.

    It is computed in `parts` one after the other, each by the `shards` of the model if it has any. The mean is over
    the targets that count in the whole batch, however unequally they lie. With `random`, as in training: dropout.
    """
    parameters = model.parameters()
    parameters.zero_gradient()
    tokens, targets = batch
    token_count = max(1, count_targets(targets))
    rows, total = -(-len(tokens) // parts), 0.0
    for offset in range(0, len(tokens), rows):
        part = tokens[offset : offset + rows], targets[offset : offset + rows]
        options = {"random": copy.deepcopy(random), "offset": offset, "token_count": token_count}
        if shards is None:
            loss = model.loss(*part, **options)
            loss.backward()
            total = total + loss.data
        else:
            total += shards.gradient(*part, **options)
    return total
