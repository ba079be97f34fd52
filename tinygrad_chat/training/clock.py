"""Training time, without evaluations and other work between steps, and the time since the last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tinygrad_chat.training.run import Run


class Clock:
    """Counts the seconds spent in training steps, in the run as a whole and since the last line of the log."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._steps = 0
        self._seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        passed = time.perf_counter() - self._began
        self._steps += 1
        self._seconds += passed
        self._run.progress.seconds += passed

    def fraction_used(self) -> float:
        """The fraction of the configured minutes that has been used; 0 without a limit."""
        minutes = self._run.config.schedule.minutes
        return 0.0 if minutes is None else self._run.progress.seconds / (60 * minutes)

    def tokens_per_second(self) -> float:
        """Training tokens per second since the last call."""
        speed = self._steps * self._run.config.tokens_per_step / self._seconds
        self._steps, self._seconds = 0, 0.0
        return speed


MAX_LOST_SECONDS = 60.0  # seconds of training that may be lost to a kill
SAVING_SHARE = 0.03  # the largest share of time spent on temporary checkpoints


class CheckpointClock:
    """Says when a temporary checkpoint is due: a minute after the last checkpoint, or later if saving is slow."""

    def __init__(self) -> None:
        self._saved = time.monotonic()
        self._took = 0.0

    def due(self) -> bool:
        """Return whether a kill would now lose too much training time."""
        return time.monotonic() - self._saved >= max(MAX_LOST_SECONDS, self._took / SAVING_SHARE)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure how long saving a checkpoint takes, and restart the count."""
        began = time.monotonic()
        yield
        self._saved = time.monotonic()
        self._took = self._saved - began
