"""Random streams: one seed, several independent uses, each a pure function of the seed, its purpose and a position.

The batch of step 500 depends on (seed, "batches", 500) and on nothing that was drawn before it. So a run can be
resumed at any step without saving the state of a generator, and turning dropout on does not change the batches.

>>> rng(1, "batches", 500).random() == rng(1, "batches", 500).random()
True
"""

from __future__ import annotations

import numpy as np

PURPOSES = ("initialisation", "batches", "dropout", "sampling", "documents", "blocks", "rows", "rollouts")


def rng(seed: int, purpose: str, position: int = 0, *within: int) -> np.random.Generator:
    """Return the generator for `purpose` (one of PURPOSES) at `position`, such as a step or the number of a sample, or
    at a place `within` it."""
    key = (PURPOSES.index(purpose), position, *within)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
