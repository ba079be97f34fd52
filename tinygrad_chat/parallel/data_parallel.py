"""The gradient of a batch, and the losses of its tokens, computed by several threads at once."""

from __future__ import annotations

import copy

import numpy as np

from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.nn import GradientBuffer
from tinygrad_chat.ops.cross_entropy import count_targets
from tinygrad_chat.parallel.communicator import Communicator
from tinygrad_chat.parallel.sharding import even_shares
from tinygrad_chat.parallel.threads import ThreadTeam

WORTHWHILE = 200_000_000
"""Parameters times tokens per thread below which starting threads costs more than it saves."""


class DataParallel:
    """Threads that share a model's weights; each has its own graph and gradient for its rows of a batch."""

    def __init__(self, model: GPT, threads: int) -> None:
        self.model = model
        self.context = model.context
        self.threads = threads
        self._others = [GradientBuffer(model.parameters()) for _ in range(1, threads)]

    def gradient(
        self,
        tokens: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        random: np.random.Generator | None = None,
        offset: int = 0,
        token_count: int | None = None,
    ) -> float:
        """Accumulate the gradient of the loss of targets (B, T) given tokens (B, T) in the model; return the loss.

        Weights and options are those of the model's `loss`: every thread divides by the token count of the whole batch.
        The number of threads changes the result by rounding only; with the same number it is bit-identical. A batch of
        one row uses a single thread.
        """
        token_count = token_count or max(1, count_targets(targets))
        shares = even_shares(len(tokens), min(self.threads, len(tokens)))

        def work(communicator: Communicator) -> float:
            rank = communicator.rank
            rows = shares[rank]
            loss = self.model.loss(
                tokens[rows],
                targets[rows],
                None if weights is None else weights[rows],
                random=copy.deepcopy(random),
                offset=offset + rows.start,
                token_count=token_count,
            )
            if rank == 0:
                gradient = self.model.parameters().gradient
                loss.backward()
            else:
                buffer = self._others[rank - 1]
                gradient = buffer.flat
                gradient.fill(0)
                loss.backward(deliver=buffer.add)
            communicator.all_reduce(gradient)
            return loss.item()

        return sum(ThreadTeam(len(shares)).run(work))

    def token_losses(self, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the loss of each target (B, T) given tokens (B, T), like the model's method of that name."""
        shares = even_shares(len(tokens), min(self.threads, len(tokens)))

        def work(communicator: Communicator) -> np.ndarray:
            rows = shares[communicator.rank]
            return self.model.token_losses(tokens[rows], targets[rows])

        return np.concatenate(ThreadTeam(len(shares)).run(work))


def make_data_parallel(model: object, threads: int, *, rows: int) -> DataParallel | None:
    """Return the threads to train `model` with on `rows` rows at a time; None if that would not be faster.

    With None, each matrix product uses all threads; otherwise each rank's products use one.
    """
    if not isinstance(model, GPT) or model.parameters().backend.name != "numpy" or min(threads, rows) < 2:
        return None
    tokens = rows * model.context // min(threads, rows)
    return DataParallel(model, threads) if model.parameters().size * tokens >= WORTHWHILE else None
