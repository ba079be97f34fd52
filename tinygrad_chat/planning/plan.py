"""The time and memory that a run will take, predicted from its first steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.models.size import flops_per_token
from tinygrad_chat.planning.measurement import COMMAND, Measurement, measure
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.download import Progress
from tinygrad_chat.training.loop import SAMPLE_LENGTH


@dataclass(frozen=True)
class Seconds:
    """The wall-clock time of `tgc train` by activity. `evaluations` include their samples; `other` is logging and other
    work between steps."""

    startup: float
    training: float
    evaluations: float
    checkpoints: float
    other: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Plan:
    """The predicted cost of a run. `memory` is the peak of its process in bytes, without the memory-mapped pages of its
    corpus, which the system can reclaim; `device_memory` that of a GPU; with several ranks, that of each. `flops` are
    the model's (models/size.py)."""

    parameters: int
    vocabulary: int
    steps: int
    tokens: int
    evaluations: int
    checkpoints: int
    grad_accumulation: int
    micro_batch: int
    flops_per_step: int
    flops: int
    memory: int
    device_memory: int | None
    seconds: Seconds
    tokens_per_second: float
    flops_per_second: float
    measurement: Measurement

    def to_json(self) -> dict[str, Any]:
        """Return the plan, ready for JSON."""
        plan = dataclasses.asdict(self)
        plan["seconds"]["total"] = self.seconds.total
        return plan


def make_plan(
    config: TrainingConfig,
    *,
    command: Sequence[str] = COMMAND,
    confirmed: bool = False,
    room: float | None = None,
    ranks: int = 1,
    progress: Progress | None = None,
) -> Plan:
    """Predict the run of `config` from about two seconds of it; the arguments are those of `measure`.

    `progress` reports a download, which is not part of the prediction.
    """
    open_corpus(config.data.source, **config.data.reading, progress=progress)
    return predict(config, measure(config, command=command, confirmed=confirmed, room=room, ranks=ranks))


def predict(config: TrainingConfig, measured: Measurement) -> Plan:
    """Predict the whole run from a measurement.

    The first step, which warms everything up, counts as measured, all others as the mean. A run with --minutes takes as
    many steps as its time allows.
    """
    steps, first, step = config.schedule.steps, measured.first_step_seconds, measured.step_seconds
    if config.schedule.minutes is not None:
        steps = min(steps, max(1, 1 + math.ceil((60 * config.schedule.minutes - first) / step)))
    training = first + (steps - 1) * step
    evaluations, checkpoints = count_evaluations(config, steps), count_checkpoints(config, steps)
    sample = min(SAMPLE_LENGTH, measured.document_tokens) * measured.sample_seconds_a_token
    evaluation = (measured.validation_tokens - 1) * measured.evaluation_seconds_a_token + sample
    tokens = steps * config.tokens_per_step
    flops = flops_per_token(config.model, measured.vocabulary)
    return Plan(
        parameters=measured.parameters,
        vocabulary=measured.vocabulary,
        steps=steps,
        tokens=tokens,
        evaluations=evaluations,
        checkpoints=checkpoints,
        grad_accumulation=config.compute.grad_accumulation,
        micro_batch=config.micro_batch,
        flops_per_step=flops * config.tokens_per_step,
        flops=flops * tokens,
        memory=measured.peak_memory,
        device_memory=measured.device_memory,
        seconds=Seconds(
            startup=measured.startup_seconds,
            training=training,
            evaluations=evaluations * evaluation,
            checkpoints=checkpoints * measured.checkpoint_seconds,
            other=steps * measured.between_steps_seconds,
        ),
        tokens_per_second=tokens / training,
        flops_per_second=flops * tokens / training,
        measurement=measured,
    )


def count_evaluations(config: TrainingConfig, steps: int) -> int:
    """Return how often a run of `steps` is evaluated: at step 0, at multiples of --eval-every and after the last."""
    return 1 + steps // config.run.eval_every + (steps % config.run.eval_every > 0)


def count_checkpoints(config: TrainingConfig, steps: int) -> int:
    """Return how many checkpoints a run of `steps` writes: before each evaluation and every --checkpoint-every."""
    every, beside = config.run.eval_every, config.run.checkpoint_every
    if beside is None:
        return count_evaluations(config, steps)
    return (
        1
        + steps // every
        + steps // beside
        - steps // math.lcm(every, beside)
        + (steps % every > 0 and steps % beside > 0)
    )
