"""A model of the time of a training step with more ranks: compute, bytes and latency. See docs/distributed.md."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepModel:
    """The parameters of a step with a fixed batch: seconds of the gradient and of the optimiser's update on one rank,
    `bytes` of a gradient, `bandwidth` in bytes of it per second, and `latency` of a message in seconds."""

    gradient: float
    optimizer: float
    bytes: int
    bandwidth: float
    latency: float

    def compute(self, ranks: int, *, ranks_a_core: float = 1.0) -> float:
        """Return the seconds that each of `ranks` computes: both parts are shared (ZeRO-1). Ranks on the same core take
        turns."""
        return (self.gradient + self.optimizer) / ranks * ranks_a_core

    def communication(self, ranks: int) -> float:
        """Return the seconds of reduce-scatter and all-gather.

        Each rank sends and receives all but its own share: in a ring, in as many messages as there are other ranks; in
        a tree, which libraries choose when latency dominates, in log2 of the ranks. `bandwidth` was measured between
        two ranks, which exchange half of the bytes.
        """
        if ranks == 1:
            return 0.0
        return 2 * (ranks - 1) / ranks * self.bytes / self.bandwidth + 2 * math.ceil(math.log2(ranks)) * self.latency

    def seconds(self, ranks: int, *, ranks_a_core: float = 1.0) -> float:
        """Return the seconds of a step, with no overlap of communication and compute."""
        return self.compute(ranks, ranks_a_core=ranks_a_core) + self.communication(ranks)
