"""How a batch's loss compares with those of the batches before it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinygrad_chat.schema import Amount, Count

WINDOW = 50  # batches that the averages cover, and that must be seen before any loss is judged


@dataclass
class RecentLosses:
    """A running mean and variance: plain over the first WINDOW losses, exponential from then on."""

    count: Count = 0
    mean: float = 0.0  # may be negative when learning from rewards
    variance: Amount = 0.0

    def z_score(self, loss: float) -> float:
        """Return how many standard deviations `loss` lies above the mean; 0 while too few losses are known."""
        if self.count < WINDOW or self.variance == 0:
            return 0.0
        return (loss - self.mean) / math.sqrt(self.variance)

    def add(self, loss: float) -> None:
        """Add a loss. The mean adapts to a lasting change of level."""
        self.count += 1
        share = 1 / min(self.count, WINDOW)
        surprise = loss - self.mean
        self.mean += share * surprise
        self.variance = (1 - share) * (self.variance + share * surprise * surprise)
