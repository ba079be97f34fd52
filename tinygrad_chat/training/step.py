"""A training step: a batch's gradient (with gradient accumulation or without), clipping and the optimiser's update."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tinygrad_chat.autograd import Node, choosing_products
from tinygrad_chat.backend import ProductChoices
from tinygrad_chat.models.protocol import LanguageModel, Predictor
from tinygrad_chat.nn import NewGradient
from tinygrad_chat.ops.cross_entropy import count_targets
from tinygrad_chat.optim import Optimizer, Schedule
from tinygrad_chat.optim.clipping import measure_gradient
from tinygrad_chat.parallel import DataParallel
from tinygrad_chat.text.batches import Batch, WeightedBatch
from tinygrad_chat.training.answering import Answer, Questions, answers_of
from tinygrad_chat.training.graphs import CapturedStep, StepGraphs


class StepResult(NamedTuple):
    """The result of a step: the batch's loss in nats per token, the gradient norm before clipping, the learning rate.

    On a device, loss and norm are device arrays, perhaps not computed yet; `float` synchronises. If either is not
    finite, or the step was `skipped`, the weights have not changed.
    """

    loss: Any
    grad_norm: Any
    lr: float
    skipped: bool = False


class TrainStep:
    """Updates a model's weights once per call. The training loop, the profiler and the benchmarks all use it.

    `grad_accumulation` is the number of micro-batches in which a batch's gradient is computed, `data_parallel` the
    threads that share each of them, `clip` the largest gradient norm (None: no clipping). On a device nothing here
    synchronises. With `graphs`, steps of one shape are captured as CUDA graphs, where a device has such, and then
    replayed by a few calls of the host; `why_eager` says why they are not, if that failed. A device computes products
    by the algorithms that `products` say, and adds the fastest for those that are new (None: its library chooses each
    time).
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
        graphs: bool = False,
        products: ProductChoices | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.clip = clip
        self.grad_accumulation = grad_accumulation
        self.data_parallel = data_parallel
        self.products = products
        capture = model.parameters().backend.graph_capture() if graphs and data_parallel is None else None
        self._graphs = None if capture is None else StepGraphs(capture, model, optimizer, self._clip_and_update)

    @property
    def why_eager(self) -> str | None:
        """Why capturing a step failed, in one line; None if it has not."""
        return None if self._graphs is None else self._graphs.refused

    @property
    def captured(self) -> bool:
        """Whether a step has been captured as CUDA graphs, which are replayed for batches of that shape."""
        return self._graphs is not None and len(self._graphs) > 0

    @property
    def ranks(self) -> int:
        """How many ranks share the step."""
        return 1

    @property
    def predictor(self) -> Predictor:
        """What to evaluate the model with: the threads that train it, if there are several."""
        return self.data_parallel or self.model

    def answers(self, questions: Questions) -> list[Answer]:
        """Let the model answer questions."""
        return answers_of(self.model, questions)

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Return a copy of the optimiser's state in host memory."""
        return self.optimizer.state()

    def restore(self, weights: Mapping[str, np.ndarray], optimizer_state: Mapping[str, np.ndarray]) -> None:
        """Load weights and optimiser state. Raises CheckpointError if either does not fit."""
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
        """Take the step at `position` of the schedules, counted from 0. With `random`, dropout is applied.

        `skip` is called with the loss and decides whether to leave the weights alone; on a device that synchronises.
        """
        if self._graphs is not None:
            settings = self.clip, self.grad_accumulation
            with choosing_products(self.products):
                captured = self._graphs.step_for(batch, random, micro_batches=self.grad_accumulation, settings=settings)
            if captured is not None:
                return self._replay(captured, batch, position, random, skip)
        loss = self.gradient(batch, random=random)
        grad_norm, scale = self.measure_gradient()
        skipped = skip is not None and skip(float(loss))
        if not skipped:
            self.update(loss, scale, position)
        return StepResult(loss, grad_norm, self.schedule(position), skipped)

    def _replay(
        self,
        captured: CapturedStep,
        batch: Batch | WeightedBatch,
        position: int,
        random: np.random.Generator | None,
        skip: Callable[[float], bool] | None,
    ) -> StepResult:
        """Take a step that was captured: the same, with the clipping as part of the update."""
        rate = self.schedule(position)
        loss, norm = captured.take(batch, random, lambda: self.optimizer.prepare(rate, position), skip)
        if norm is None:
            return StepResult(loss, self.measure_gradient()[0], rate, skipped=True)
        return StepResult(loss, norm, rate)

    def _clip_and_update(self, loss: Any) -> Any:
        """Update the weights with the clipped gradient, by what the optimiser has prepared; return the norm before."""
        grad_norm, scale = self.measure_gradient()
        self.optimizer.update(scale + 0 * loss)  # 0 times a non-finite loss is NaN
        return grad_norm

    def gradient(
        self,
        batch: Batch | WeightedBatch,
        *,
        random: np.random.Generator | None = None,
        model: LanguageModel | None = None,
    ) -> Any:
        """Compute the gradient of a batch's mean loss into the model's gradient buffer; return the loss.

        Diagnosis passes another `model`, which then runs in one thread.
        """
        threads = self.data_parallel if model is None else None
        with choosing_products(self.products):
            return accumulate_gradient(
                model or self.model, batch, micro_batches=self.grad_accumulation, random=random, data_parallel=threads
            )

    def measure_gradient(self) -> tuple[Any, Any]:
        """Return the gradient's norm and the factor that scales it down if its norm exceeds `clip`, for `update`."""
        return measure_gradient(self.model.parameters(), self.clip)

    def update(self, loss: Any, scale: Any, position: int) -> None:
        """Update the weights with the gradient times `scale`, unless loss or scale is not finite.

        The host checks numbers that it already has; on a device the kernels check.
        """
        on_host = isinstance(loss, float | np.floating) and isinstance(scale, float | np.floating)
        if on_host:
            if not (math.isfinite(loss) and math.isfinite(scale)):
                return
            if scale != 1:
                self.model.parameters().gradient *= scale
        self.optimizer.prepare(self.schedule(position), position)
        with choosing_products(self.products):
            self.optimizer.update(None if on_host else scale + 0 * loss)  # 0 times a non-finite loss is NaN


def accumulate_gradient(
    model: LanguageModel,
    batch: Batch | WeightedBatch,
    *,
    micro_batches: int,
    random: np.random.Generator | None = None,
    data_parallel: DataParallel | None = None,
    first_row: int = 0,
    token_count: int | None = None,
    deliver: Callable[[Node, Any], None] | None = None,
) -> Any:
    """Compute the gradient of a batch's mean loss into the model's gradient buffer; return the loss.

    On a device the loss is a device array, perhaps not computed yet, and each weight's first gradient is written over
    the last step's. The gradient is accumulated over `micro_batches` of equal size, one after another, each shared by
    the threads of `data_parallel` if given. The mean is over all targets that count in the whole batch, however
    unevenly these share them. With `random`, dropout is applied. If the batch is a rank's shard of a larger one,
    `first_row` is the shard's first row and `token_count` the number of targets that count in the larger one. `deliver`
    receives the gradients in the backward pass of the last micro-batch, as they become complete.
    """
    parameters = model.parameters()
    shared = data_parallel is not None or deliver is not None
    new = None if parameters.backend.name == "numpy" or shared else NewGradient(parameters)
    if new is None:
        parameters.zero_gradient()
    tokens, targets, *_ = batch
    token_count = token_count or max(1, count_targets(targets))
    rows, total = -(-len(tokens) // micro_batches), 0.0
    for start in range(0, len(tokens), rows):
        micro_batch = [array[start : start + rows] for array in batch]
        options = {"random": copy.deepcopy(random), "offset": first_row + start, "token_count": token_count}
        if data_parallel is None:
            loss = model.loss(*micro_batch, **options)
            last = start + rows >= len(tokens)
            into = new.deliver if new else deliver if last else None
            loss.backward(**({"deliver": into} if into else {}))
            total = total + loss.data
        else:
            total += data_parallel.gradient(*micro_batch, **options)
    if new is not None:
        new.finish()
    return total
