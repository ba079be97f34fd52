"""The largest micro-batch that fits into memory, extrapolated linearly from two small ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tinygrad_chat.backend import available_memory
from tinygrad_chat.config.groups import OWN
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import NoRoomError, UsageError
from tinygrad_chat.models.memory import least_training_memory
from tinygrad_chat.planning.measurement import COMMAND, ENOUGH_SECONDS, Measurement, measure
from tinygrad_chat.planning.plan import Plan, predict
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.download import Progress
from tinygrad_chat.training.build import TRAINED, choose_compute

AVAILABLE_SHARE = 0.8  # of the available memory: the default budget
SMALL_TOKENS = 2048  # in the larger of the two micro-batches that the line goes through: enough for a clear slope
SMALL_WINDOWS = 16


@dataclass(frozen=True)
class Fitted:
    """A configuration whose micro-batches fit into `budget` bytes, its plan, and the measured (windows, bytes)."""

    config: TrainingConfig
    plan: Plan
    budget: float
    measured: list[tuple[int, int]]


def fit(
    config: TrainingConfig,
    memory: float | None = None,
    *,
    command: Sequence[str] = COMMAND,
    confirmed: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """Choose the fewest micro-batches whose memory stays within `memory` bytes, and plan the run with them.

    The default is four fifths of what is available. Memory is linear in the windows of a micro-batch: two small ones
    are measured, then the one that the line predicts. `say` reports each. Raises NoRoomError if not even one of a
    single window fits, before anything is measured if the model alone is too large, and UsageError for a GPU, where
    `memory` has no default.
    """
    on_device = choose_compute(config).backend.memory_held() is not None
    if on_device and memory is None:
        raise UsageError("--fit: on a GPU expected --memory, how many GiB of the device's the run may take")
    budget = AVAILABLE_SHARE * available_memory() if memory is None else memory
    known = _least_known(config)
    if known > budget:
        raise _no_room(config, f"it takes at least {known / 2**30:.3g} GiB", budget)
    open_corpus(config.data.source, **config.data.reading, progress=progress)

    def tried(trial: TrainingConfig, seconds: float, room: float | None = None) -> Measurement:
        windows = trial.micro_batch
        say(f"measuring micro-batches of {windows} window{'s' * (windows > 1)}")
        return measure(trial, seconds=seconds, command=command, confirmed=confirmed, room=room)

    least = config.replace(batch_size=1, grad_accumulation=1)
    try:
        one = tried(least, 0.0)
    except NoRoomError as error:
        raise _no_room(config, "it takes more than the machine has available", budget) from error
    if one.fullest_memory > budget:
        raise _no_room(config, f"it takes {one.fullest_memory / 2**30:.3g} GiB", budget)
    measured = [(1, one.step_memory)]
    safe = (budget - one.built_memory) / max(one.step_memory - one.built_memory, 1)  # windows, if none share memory
    small = min(config.data.batch_size, SMALL_WINDOWS, max(2, SMALL_TOKENS // config.model.context), int(safe))
    if small > 1:
        measured.append((small, tried(least.replace(batch_size=small), 0.0).step_memory))
    room = None if on_device else budget
    for accumulated in choose_accumulation(config.data.batch_size, budget, measured):
        chosen = config.replace(grad_accumulation=accumulated)
        try:
            found = tried(chosen, ENOUGH_SECONDS, room)
        except NoRoomError:
            continue
        if found.fullest_memory <= budget:
            return Fitted(chosen, predict(chosen, found), budget, measured)
    raise _no_room(config, "the whole run takes more", budget)


def _least_known(config: TrainingConfig) -> int:
    """Return the bytes that a step of one window takes at least, whatever the text: of a vocabulary of one token."""
    if config.recipe.model == OWN:
        return 0  # unknown for a custom model
    return least_training_memory(
        config.model,
        1,
        rows=1,
        buffers=TRAINED[config.optimizer.kind],
        mode=config.compute.mode,
        size=choose_compute(config).array_dtype.itemsize,
        recompute=config.compute.recompute,
    )


def extrapolate(measured: Sequence[tuple[int, int]], windows: int) -> float:
    """Return the bytes of a micro-batch of `windows` windows, on the line through the first and last (windows, bytes).

    >>> extrapolate([(1, 150), (3, 250)], 10)
    600.0
    """
    (first, low), (last, high) = measured[0], measured[-1]
    slope = max(0.0, (high - low) / (last - first)) if last > first else 0.0
    return low + slope * (windows - first)


def choose_accumulation(batch_size: int, budget: float, measured: Sequence[tuple[int, int]]) -> list[int]:
    """Return the numbers of equal micro-batches into which a batch can be split so that each takes at most `budget`
    bytes, fewest first. If only one window was measured, more cannot be predicted, so only those of one window qualify.

    >>> choose_accumulation(12, 400, [(1, 150), (3, 250)])
    [2, 3, 4, 6, 12]
    """
    most = batch_size if len(measured) > 1 else 1
    return [
        number
        for number in divisors(batch_size)
        if batch_size // number <= most and extrapolate(measured, batch_size // number) <= budget
    ]


def divisors(number: int) -> Iterator[int]:
    """Yield the divisors of a number, smallest first."""
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    yield from small
    yield from (number // divisor for divisor in reversed(small) if divisor**2 != number)


def _no_room(config: TrainingConfig, reason: str, budget: float) -> NoRoomError:
    return NoRoomError(
        f"--fit: expected at most {budget / 2**30:.3g} GiB for a step of one window of --context "
        f"{config.model.context}, but {reason}; choose a smaller --width, --layers or --context, or more --memory"
    )
