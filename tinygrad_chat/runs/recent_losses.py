"""How a batch's loss compares with those of the batches before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WINDOW = 50  # batches that the averages look back over, and that must have been seen before anything is judged


@dataclass
class RecentLosses:
    """A running mean and variance: plain over the first WINDOW losses, exponential from then on."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> RecentLosses:
        """Make the averages that `state`, their `dataclasses.asdict`, describes. Raises ValueError for another."""
        kinds = {"count": int, "mean": float, "variance": float}
        fits = state.keys() == kinds.keys() and all(isinstance(state[name], kind) for name, kind in kinds.items())
        if not (fits and all(math.isfinite(value) and value >= 0 for value in state.values())):
            raise ValueError(f"recent losses: expected a count, a mean and a variance, received {dict(state)!r:.80}")
        return cls(**state)

    def z_score(self, loss: float) -> float:
        """Return how many standard deviations `loss` lies above the mean; 0 while too few losses are known."""
        if self.count < WINDOW or self.variance == 0:
            return 0.0
        return (loss - self.mean) / math.sqrt(self.variance)

    def add(self, loss: float) -> None:
        """Take a loss in. A lasting change of level so becomes the new level."""
        self.count += 1
        share = 1 / min(self.count, WINDOW)
        surprise = loss - self.mean
        self.mean += share * surprise
        self.variance = (1 - share) * (self.variance + share * surprise * surprise)
