"""A training step: a batch's gradient, whole or in parts, its clipping, and the optimiser's update."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tinygrad_chat.autograd import Node
from tinygrad_chat.models.protocol import LanguageModel, Predictor
from tinygrad_chat.ops.cross_entropy import count_targets
from tinygrad_chat.optim import Optimizer, Schedule, clip_gradient
from tinygrad_chat.parallel import DataParallel
from tinygrad_chat.text.batches import Batch, WeightedBatch
from tinygrad_chat.training.answering import Answer, Questions, answers_of


class StepResult(NamedTuple):
    """What came of a step: the batch's loss in nats a token, the gradient's norm before clipping, the learning rate.

    On a device loss and norm are arrays there, which nobody has waited for; `float` does. Where either is not finite,
    or the step was `skipped`, nothing has moved.
    """

    loss: Any
    grad_norm: Any
    lr: float
    skipped: bool = False


class TrainStep:
    """Updates a model's weights once a call. The training loop, the profiler and the benchmarks all take it.

    `grad_accumulation` is the number of equal parts that a batch's gradient is computed in, `data_parallel` the threads
    that share each part, `clip` the longest gradient (None: any length). On a device nothing here waits for it, and
    what changes from step to step lies in memory before the optimiser's `update` begins: so the gradient and that can
    each be recorded.
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        clip: float | None = None,
        grad_accumulation: int = 1,
        data_parallel: DataParallel | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.clip = clip
        self.grad_accumulation = grad_accumulation
        self.data_parallel = data_parallel

    @property
    def ranks(self) -> int:
        """How many ranks share it."""
        return 1

    @property
    def predictor(self) -> Predictor:
        """What the model is evaluated with: the threads that train it, where there are several."""
        return self.data_parallel or self.model

    def answers(self, questions: Questions) -> list[Answer]:
        """Let the model answer questions."""
        return answers_of(self.model, questions)

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Return a copy, in host memory, of all that the optimiser remembers between steps."""
        return self.optimizer.state()

    def restore(self, weights: Mapping[str, np.ndarray], optimizer_state: Mapping[str, np.ndarray]) -> None:
        """Go on from there. Raises CheckpointError where either does not fit."""
        self.model.parameters().load(weights)
        self.optimizer.load(optimizer_state)

    def __call__(
        self,
        batch: Batch | WeightedBatch,
        position: int,
        *,
        random: np.random.Generator | None = None,
        skip: Callable[[float], bool] | None = None,
    ) -> StepResult:
        """Take the step at `position`, counted from 0, of the schedules. With `random` there is dropout.

        `skip` is asked with the loss whether to leave the weights alone: on a device that waits for it.
        """
        loss = self.gradient(batch, random=random)
        grad_norm = self.clip_gradient()
        skipped = skip is not None and skip(float(loss))
        if not skipped:
            self.update(loss, grad_norm, position)
        return StepResult(loss, grad_norm, self.schedule(position), skipped)

    def gradient(
        self,
        batch: Batch | WeightedBatch,
        *,
        random: np.random.Generator | None = None,
        model: LanguageModel | None = None,
    ) -> Any:
        """Leave the gradient of a batch's mean loss in the model's buffer; return that loss.

        For a diagnosis, of another `model`, in one thread.
        """
        threads = self.data_parallel if model is None else None
        return accumulate_gradient(
            model or self.model, batch, parts=self.grad_accumulation, random=random, data_parallel=threads
        )

    def clip_gradient(self) -> Any:
        """Scale the gradient down where it is longer than `clip`; return its norm before."""
        return clip_gradient(self.model.parameters(), self.clip)

    def update(self, loss: Any, grad_norm: Any, position: int) -> None:
        """Move the weights, unless loss or norm is not finite.

        The host looks where the numbers are at hand; on a device the kernels do.
        """
        on_host = isinstance(loss, float | np.floating) and isinstance(grad_norm, float | np.floating)
        if on_host and not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return
        self.optimizer.prepare(self.schedule(position), position)
        self.optimizer.update(None if on_host else grad_norm + 0 * loss)  # 0 times one that is not finite is NaN


def accumulate_gradient(
    model: LanguageModel,
    batch: Batch | WeightedBatch,
    *,
    parts: int,
    random: np.random.Generator | None = None,
    data_parallel: DataParallel | None = None,
    first_row: int = 0,
    token_count: int | None = None,
    deliver: Callable[[Node, Any], None] | None = None,
) -> Any:
    """Leave the gradient of a batch's mean loss in the model's buffer; return that loss: on a device an array, which
    nobody has waited for.

    It is computed in `parts` one after the other, each by the threads of `data_parallel` if there are any. The mean is
    over the targets that count in the whole batch, however unequally they lie. With `random`, as in training: dropout.
    Where the batch is a rank's share of a larger one, `first_row` says from which row on, and `token_count` how many
    targets count in the larger one. `deliver` is told of the gradients of the last part, after which they are whole.
    """
    parameters = model.parameters()
    parameters.zero_gradient()
    tokens, targets, *_ = batch
    token_count = token_count or max(1, count_targets(targets))
    rows, total = -(-len(tokens) // parts), 0.0
    for start in range(0, len(tokens), rows):
        part = [array[start : start + rows] for array in batch]
        options = {"random": copy.deepcopy(random), "offset": first_row + start, "token_count": token_count}
        if data_parallel is None:
            loss = model.loss(*part, **options)
            last = deliver is not None and start + rows >= len(tokens)
            loss.backward(**({"deliver": deliver} if last else {}))
            total = total + loss.data
        else:
            total += data_parallel.gradient(*part, **options)
    return total
