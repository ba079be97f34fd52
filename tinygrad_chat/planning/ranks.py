"""How long a training step takes with more ranks: a model of compute, bytes and latency. docs/distributed.md has it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepModel:
    """What a step of a fixed batch is made of: seconds of its gradient and of its optimiser's update on one rank, the
    bytes of a gradient, the bytes of it that ranks exchange a second, and the seconds of a message's way."""

    gradient: float
    optimizer: float
    bytes: int
    bandwidth: float
    latency: float

    def compute(self, ranks: int, *, ranks_a_core: float = 1.0) -> float:
        """Return the seconds that each of `ranks` computes: both parts are shared (ZeRO-1). Where ranks share cores,
        they take turns."""
        return (self.gradient + self.optimizer) / ranks * ranks_a_core

    def communication(self, ranks: int) -> float:
        """Return the seconds of reduce-scatter and all-gather.

        Each rank sends and receives all but its own share, in as many messages as there are other ranks in a ring, or
        in their logarithm in a tree, which is what libraries choose where latency counts. `bandwidth` was measured
        between two ranks, which exchange half of the bytes.
        """
        if ranks == 1:
            return 0.0
        return 2 * (ranks - 1) / ranks * self.bytes / self.bandwidth + 2 * math.ceil(math.log2(ranks)) * self.latency

    def seconds(self, ranks: int, *, ranks_a_core: float = 1.0) -> float:
        """Return the seconds of a step, nothing of whose communication is hidden behind its computing."""
        return self.compute(ranks, ranks_a_core=ranks_a_core) + self.communication(ranks)
