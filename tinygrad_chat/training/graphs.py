"""A training step, captured as CUDA graphs: the gradient of a batch's first micro-batch, which is written over the last
step's, that of any further one, which is added, and the update.

The host then makes a few calls a step, where it made one for each kernel. What changes from step to step is sent in one
packet to fixed addresses in the device's memory before a gradient is replayed: tokens, targets and their weights, the
seeds of dropout, a micro-batch's place in its batch, the number of targets that count, and the optimiser's scalars.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from tinygrad_chat.autograd import current_mode
from tinygrad_chat.backend import CapturedByKind, GraphCapture, Packet, narrowed
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.nn import NewGradient
from tinygrad_chat.ops.cross_entropy import count_targets
from tinygrad_chat.optim import Optimizer
from tinygrad_chat.text.batches import Batch, WeightedBatch

SEEDS = 1024  # the most dropouts in a forward pass


class StepGraphs(CapturedByKind[Hashable, "CapturedStep"]):
    """Captures a model's step in the first shape that comes some times in a row; every other shape stays eager.

    `update(loss)` updates the weights by the optimiser with the gradient in the buffer and returns its norm.
    """

    def __init__(
        self, capture: GraphCapture, model: LanguageModel, optimizer: Optimizer, update: Callable[[Any], Any]
    ) -> None:
        super().__init__(capture, limit=1)
        self._model, self._optimizer, self._update = model, optimizer, update

    def step_for(
        self, batch: Batch | WeightedBatch, random: np.random.Generator | None, *, micro_batches: int, settings: Any
    ) -> CapturedStep | None:
        """Return the captured step for a batch in so many micro-batches, captured now if it is time to; None if the
        step is to be taken eagerly. `settings` are what else the graphs hold for."""
        if not current_mode().is_plain or len(batch[0]) % micro_batches:
            return None
        shapes, drops = tuple((x.shape, x.dtype) for x in batch), random is not None
        work = self._model, self._optimizer, self._update
        return self.find(
            (shapes, drops, getattr(self._model, "recompute", None), settings),
            lambda capture: CapturedStep(capture, *work, batch, micro_batches=micro_batches, drops=drops),
        )


class CapturedStep:
    """The graphs, and what they read. Raises what capturing raises."""

    def __init__(
        self,
        capture: GraphCapture,
        model: LanguageModel,
        optimizer: Optimizer,
        update: Callable[[Any], Any],
        batch: Batch | WeightedBatch,
        *,
        micro_batches: int,
        drops: bool,
    ) -> None:
        self._capture, self._model, self._update_weights = capture, model, update
        self._scalars = optimizer.scalars
        self._rows = len(batch[0]) // micro_batches
        backend = model.parameters().backend
        place = (2,), np.int64  # the micro-batch's first row, and how many targets count
        seeds = (SEEDS if drops else 0,), np.int64
        types = np.int32, np.int32, np.float32  # of tokens, targets and weights
        inputs = [((self._rows, *x.shape[1:]), dtype) for x, dtype in zip(batch, types, strict=False)]
        with capture.on_its_stream():
            self._packet = Packet(backend, self._scalars.kind, place, seeds, *inputs)
            self._prepared, self._place, self._seeds, *self._inputs = self._packet.slots
            self._results = backend.xp.zeros(2, np.float32)
            self._loss, self._norm = self._results[0], self._results[1]
            self._place.write((0, 1))
            self._packet.send()
            # Of the first micro-batch and, if there are others, of those.
            work = [self._write_gradient, self._add_gradient][:micro_batches]
            for compute in work:  # a warm-up, so that kernels are loaded and the memory pool is filled
                compute()
            self._replay_gradient = [capture.capture(compute) for compute in work]
            with self._scalars.within(self._prepared):
                self._replay_update = capture.capture(self._compute_update)

    def take(
        self,
        batch: Batch | WeightedBatch,
        random: np.random.Generator | None,
        prepare: Callable[[], None],
        skip: Callable[[float], bool] | None = None,
    ) -> tuple[Any, Any]:
        """Take the step; return the batch's loss and the gradient's norm. `prepare` writes the optimiser's scalars.

        If `skip` is given and wants so, having seen the loss, there is no update, and the norm is None.
        """
        if skip is None:
            with self._capture.on_its_stream():
                self._prepare(prepare)
                self._compute_gradient(batch, random)
                self._replay_update()
        else:
            with self._capture.on_its_stream():
                self._compute_gradient(batch, random)
            if skip(float(self._loss)):
                return self._loss.copy(), None
            with self._capture.on_its_stream():
                self._prepare(prepare)
                self._packet.send()
                self._replay_update()
        results = self._results.copy()  # the next step overwrites them
        return results[0], results[1]

    def _prepare(self, prepare: Callable[[], None]) -> None:
        with self._scalars.within(self._prepared):
            prepare()

    def _compute_gradient(self, batch: Batch | WeightedBatch, random: np.random.Generator | None) -> None:
        if random is not None:
            self._seeds.write(copy.deepcopy(random).integers(2**63, size=SEEDS))
        token_count = max(1, count_targets(batch[1]))
        for start in range(0, len(batch[0]), self._rows):
            for slot, array in zip(self._inputs, batch, strict=True):
                slot.write(narrowed(array[start : start + self._rows]))
            self._place.write((start, token_count))
            self._packet.send()
            self._replay_gradient[0 if start == 0 else 1]()

    def _write_gradient(self) -> None:
        loss, new = self._micro_batch_loss(), NewGradient(self._model.parameters())
        loss.backward(deliver=new.deliver)
        new.finish()
        self._loss[...] = loss.data

    def _add_gradient(self) -> None:
        loss = self._micro_batch_loss()
        loss.backward()
        self._loss += loss.data

    def _micro_batch_loss(self) -> Any:
        place = self._place.array
        random: Any = _Seeds(self._seeds.array) if self._seeds.array.size else None
        return self._model.loss(
            *(slot.array for slot in self._inputs), random=random, offset=place[0], token_count=place[1]
        )

    def _compute_update(self) -> None:
        self._norm[...] = self._update_weights(self._loss)


class _Seeds:
    """In place of a step's random generator while it is captured: the numbers it will draw lie on the device."""

    def __init__(self, seeds: Any) -> None:
        self._left = iter([seeds[number] for number in range(len(seeds))])

    def integers(self, high: int) -> Any:
        """Return the next number in [0, `high`)."""
        assert high == 2**63
        return next(self._left)
