"""A training step shared by several ranks: rank 0 leads the run, and the others do what it asks.

Rank 0 alone reads the data, manages the run's folder and makes decisions: its training loop is that of a run in one
process. The others hold the model and a shard of the optimiser state (ZeRO-1). Rank 0's requests are calls to the
methods of `Rank` (parallel/member.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.backend import Inbox
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import UsageError
from tinygrad_chat.machine.memory import peak_memory
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.protocol import LanguageModel, Predictor
from tinygrad_chat.ops.cross_entropy import count_targets
from tinygrad_chat.optim.clipping import clip_scale, norm_and_scale
from tinygrad_chat.parallel import (
    FAREWELL,
    Communicator,
    ParameterShare,
    cut,
    even_shares,
    part_of_state,
    whole_state,
)
from tinygrad_chat.parallel.buckets import GradientBuckets
from tinygrad_chat.parallel.device import on_devices
from tinygrad_chat.parallel.member import DistributedPredictor, Member
from tinygrad_chat.text.batches import Batch, WeightedBatch
from tinygrad_chat.training.answering import Answer, Questions, answers_of
from tinygrad_chat.training.build import (
    ModelMaker,
    build_for_training,
    build_parallel_model,
    build_train_step,
    choose_compute,
    matrices_of_muon,
)
from tinygrad_chat.training.step import TrainStep, accumulate_gradient


class Rank(Member):
    """One rank's part of a step: the model, its share of the parameters, and the optimiser of that share."""

    def __init__(self, step: TrainStep, shares: Sequence[slice], share: ParameterShare, communicator: Communicator):
        super().__init__(communicator)
        self.step, self.share, self.predictor = step, share, step.predictor
        self._shares, self._parameters = shares, step.model.parameters()
        backend = self._parameters.backend
        self._scale = None if backend.name == "numpy" else Inbox(backend, (), np.float32)
        self.buckets = None
        # Data-parallel threads sum their gradients only after their backward passes, too late to overlap.
        if communicator.overlaps and step.data_parallel is None and isinstance(step.model, GPT):
            self.buckets = GradientBuckets(self._parameters, shares, communicator, share.gradient)

    def receive_weights(self) -> None:
        """Receive rank 0's weights, trained and frozen."""
        for array in (self._parameters.data, *self._parameters.frozen.values()):
            self.communicator.broadcast(array)
        self._parameters.refresh_compute_weights()

    def gradient(
        self, random: np.random.Generator | None, token_count: int, batches: Sequence[Any] | None = None
    ) -> list[tuple[float, float]] | None:
        """Compute the gradient of this rank's rows of a batch, and reduce-scatter it: each rank gets its share summed.

        Rank 0 passes every rank's rows, and gets every rank's loss and the gradient norm of every share.
        """
        first_row, batch = self.communicator.scatter_objects(batches)
        loss = accumulate_gradient(
            self.step.model,
            batch,
            micro_batches=self.step.grad_accumulation,
            random=random,
            data_parallel=self.step.data_parallel,
            first_row=first_row,
            token_count=token_count,
            deliver=self.buckets and self.buckets.deliver,
        )
        share = self.share
        if self.buckets is None:
            self.communicator.reduce_scatter(self._parameters.gradient, self._shares, share.gradient)
        else:
            self.buckets.finish()
        norm = float(share.kernel_of(norm_and_scale)(share.gradient, None)[0]) if share.size else 0.0
        return self.communicator.gather_objects((float(loss), norm))

    def update(self, scale: float, learning_rate: float, position: int) -> None:
        """Update this rank's share of the weights with its gradient times `scale`, and all-gather the other shares. On
        a device, the optimiser's kernels multiply."""
        if self._scale is not None:
            self._scale.write(scale)
        elif scale != 1:
            self.share.gradient *= scale
        self.step.optimizer.prepare(learning_rate, position)
        self.step.optimizer.update(None if self._scale is None else self._scale.array)
        self.communicator.all_gather(self._parameters.data, self._shares)
        self._parameters.refresh_compute_weights()

    def answers(self, parts: Sequence[Questions] | None = None) -> list[list[Answer]] | None:
        """Return every rank's answers on rank 0, which passes every rank's questions."""
        questions = self.communicator.scatter_objects(parts)
        return self.gather(lambda: answers_of(self.step.model, questions))

    def peak_memory(self) -> list[int] | None:
        """Return every rank's peak process memory in bytes, on rank 0."""
        return self.communicator.gather_objects(peak_memory())

    def optimizer_state(self) -> list[dict[str, np.ndarray]] | None:
        """Return the optimiser state of every share, on rank 0."""
        return self.communicator.gather_objects(self.step.optimizer.state())

    def restore_optimizer(self, states: Sequence[Mapping[str, np.ndarray]] | None = None) -> None:
        """Load rank 0's weights, and the optimiser state that it passes for each share."""
        self.receive_weights()
        self.step.optimizer.load(self.communicator.scatter_objects(states))


class DistributedStep(TrainStep):
    """The training step of rank 0, in which the other ranks take part. It holds the whole model and a shard of the
    optimiser state."""

    def __init__(self, rank: Rank, shares: Sequence[slice]) -> None:
        step = rank.step
        super().__init__(
            step.model,
            step.optimizer,
            step.schedule,
            clip=step.clip,
            grad_accumulation=step.grad_accumulation,
            data_parallel=step.data_parallel,
        )
        self.rank, self._shares = rank, shares
        self._grad_norm = 0.0

    @property
    def ranks(self) -> int:
        """How many take part."""
        return self.rank.communicator.size

    @property
    def predictor(self) -> Predictor:
        """All ranks together."""
        return DistributedPredictor(self.rank)

    def gradient(
        self,
        batch: Batch | WeightedBatch,
        *,
        random: np.random.Generator | None = None,
        model: LanguageModel | None = None,
    ) -> Any:
        """Compute the gradient of a batch's mean loss into the ranks' shares; return the loss.

        Diagnosis passes another `model`, which runs on rank 0 alone.
        """
        if model is not None:
            return super().gradient(batch, random=random, model=model)
        rows = even_shares(len(batch[0]), self.ranks)
        batches = [(each.start, [array[each] for array in batch]) for each in rows]
        found = self.rank.ask("gradient", random, max(1, count_targets(batch[1])), batches=batches)
        self._grad_norm = math.sqrt(sum(norm * norm for _, norm in found))
        return sum(loss for loss, _ in found)

    def measure_gradient(self) -> tuple[float, float]:
        """Return the norm of the ranks' gradient and its scale."""
        return self._grad_norm, clip_scale(self._grad_norm, self.clip)

    def update(self, loss: Any, scale: Any, position: int) -> None:
        """Update the weights, each rank its share, unless loss or scale is not finite."""
        if math.isfinite(loss) and math.isfinite(scale):
            self.rank.ask("update", scale, self.schedule(position), position)

    def answers(self, questions: Questions) -> list[Answer]:
        """Let the models of all ranks answer questions."""
        parts = [questions.part(each) for each in even_shares(len(questions.asked), self.ranks)]
        return list(itertools.chain.from_iterable(self.rank.ask("answers", parts=parts)))

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Return a copy of all ranks' optimiser states, merged as if one optimiser had all the parameters."""
        return whole_state(self.model.parameters(), self.rank.ask("optimizer_state"))

    def restore(self, weights: Mapping[str, np.ndarray], optimizer_state: Mapping[str, np.ndarray]) -> None:
        """Load weights and optimiser state on all ranks. Raises CheckpointError if either does not fit."""
        parameters = self.model.parameters()
        parameters.load(weights)
        states = [part_of_state(parameters, optimizer_state, share) for share in self._shares]
        self.rank.ask("restore_optimizer", states=states)


def build_rank(
    config: TrainingConfig,
    vocabulary: int,
    communicator: Communicator,
    make: ModelMaker | None = None,
    weights: Mapping[str, Any] | None = None,
) -> tuple[Rank, list[slice]]:
    """Return this rank's part of a run's training step, with rank 0's weights, and the shares of all ranks.

    Raises UsageError if there are more ranks than rows of a batch, and what `build_for_training` raises.
    """
    if config.data.batch_size < communicator.size:
        raise UsageError(
            f"{communicator.size} ranks: expected a --batch-size of at least one row per rank, received "
            f"{config.data.batch_size}"
        )
    communicator = on_devices(communicator, choose_compute(config).backend)
    model, data_parallel = build_parallel_model(config, vocabulary, make, weights, ranks=communicator.size)
    parameters = model.parameters()
    shares = cut(parameters, matrices_of_muon(config, model), communicator.size)
    share = ParameterShare(parameters, shares[communicator.rank])
    rank = Rank(build_train_step(config, model, data_parallel, share), shares, share, communicator)
    rank.receive_weights()
    return rank, shares


def lead(
    config: TrainingConfig,
    vocabulary: int,
    make: ModelMaker | None = None,
    weights: Mapping[str, Any] | None = None,
    communicator: Communicator | None = None,
) -> TrainStep:
    """Return a run's training step: that of this process alone or, on rank 0 of several, one shared by all ranks.

    Raises what `build_rank` raises.
    """
    if communicator is None:
        return build_for_training(config, vocabulary, make, weights)
    communicator.broadcast_object((config, vocabulary))
    return DistributedStep(*build_rank(config, vocabulary, communicator, make, weights))


def follow(
    communicator: Communicator, make: ModelMaker | None = None, done: Callable[[str], object] = lambda asked: None
) -> None:
    """Serve rank 0's requests on another rank until rank 0 says FAREWELL; `done` is called after each request.

    `make` makes a custom model.
    """
    begun = communicator.broadcast_object()
    if begun is FAREWELL:
        return
    config, vocabulary = begun
    rank, _ = build_rank(config, vocabulary, communicator, make)
    with np.errstate(all="ignore"):  # as in `update`: rank 0 finds what overflows
        rank.follow(done)
